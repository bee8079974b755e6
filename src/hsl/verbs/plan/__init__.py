"""`hsl plan`: a fingerprint of the training part, and plans of a training that follow from it."""
