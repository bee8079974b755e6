"""Drawn annotations: regions with labels, the tables and pictures that they belong to, the masks that follow."""
