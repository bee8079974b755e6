"""Hydra Segmentation Lab."""
