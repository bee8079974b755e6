"""Files of any kind: written whole, read with suspicion, named safely. No torch."""
