"""`hsl train`: config in, run folder out."""
