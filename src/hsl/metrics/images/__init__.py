"""Scores of labels of whole images."""
