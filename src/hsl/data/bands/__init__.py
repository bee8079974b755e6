"""Pictures of other channels than red, green and blue, and of places on earth."""
