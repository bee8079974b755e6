"""From bytes on disk to images and masks, and one pass over all of them."""
