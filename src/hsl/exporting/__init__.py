"""Models that leave the suite: one folder that predicts the same without it. Nothing here imports torch by itself."""
