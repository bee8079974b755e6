"""`hsl predict`: a trained model on images of any size."""
