"""From bytes on disk or on a hub to batches: catalogue, scan, split, audit, cache, transforms, loader."""
