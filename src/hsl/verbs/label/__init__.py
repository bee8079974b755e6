"""`hsl label`: masks for the training images from the class of each image."""
