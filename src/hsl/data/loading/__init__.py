"""From a prepared data set to batches: cache, transforms, sampling, workers."""
