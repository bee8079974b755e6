"""A trained model over HTTP: one process listens, one computes. Nothing here knows where a model comes from."""
