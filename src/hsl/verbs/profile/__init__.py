"""`hsl profile`: the memory of an encoder in training, and a learning rate for it."""
