"""`hsl ensemble`: members gathered, their rows kept, stages fitted on them."""
