"""`hsl study`: a search over the config of which each trial is a run of the suite."""
