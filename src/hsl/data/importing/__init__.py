"""From data of others to a folder of ours: what may group pictures, and the folder written."""
