"""Combinations of members: one file a stage, pure functions of out-of-fold rows. No stage knows a path."""
