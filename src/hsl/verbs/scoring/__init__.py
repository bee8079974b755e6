"""A checkpoint scored on validation and test, and everything that shows it."""
