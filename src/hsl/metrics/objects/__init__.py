"""Scores of objects, contours and partitions."""
