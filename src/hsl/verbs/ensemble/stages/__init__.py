"""The stages of an ensemble: run, audited, written as run folders, judged."""
