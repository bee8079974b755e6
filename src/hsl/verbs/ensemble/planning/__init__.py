"""`hsl ensemble plan`: what the stages of an ensemble that train would train."""
