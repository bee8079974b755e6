"""What `hsl analyze` shows: where classifiers look and which images they get wrong."""
