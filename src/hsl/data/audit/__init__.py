"""The check of a data set and its split before the first epoch."""
