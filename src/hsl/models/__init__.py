"""Networks: an encoder makes a pyramid of features, a decoder joins it, heads read the result."""
