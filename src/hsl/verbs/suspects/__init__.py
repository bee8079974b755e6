"""`hsl suspects` and `hsl suspects fix`: labels that models contradict, looked at and mended."""
