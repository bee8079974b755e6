"""Every file of a run folder: its name, its writer and its reader."""
