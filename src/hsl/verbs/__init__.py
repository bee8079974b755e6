"""The composition root: one file or folder a verb."""
