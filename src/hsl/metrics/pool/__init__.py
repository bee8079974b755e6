"""Tier 2 beside the training: a pool of processes that scores images."""
