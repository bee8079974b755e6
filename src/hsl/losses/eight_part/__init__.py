"""The eight-part loss: binary segmentation of many small objects from weak labels."""
