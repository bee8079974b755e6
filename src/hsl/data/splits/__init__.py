"""Which images train, validate and test: whole groups, decided once per data set."""
