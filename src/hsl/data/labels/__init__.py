"""What is known beside the masks: image labels, pseudo-labels, objects, distance maps."""
