"""Training on patches: where to cut, how, and what the cutting does to a data set."""
