"""`hsl gate`: which pictures are of the kind that a model was trained on."""
