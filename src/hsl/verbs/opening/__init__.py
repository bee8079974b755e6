"""Run folders opened: the config checked, the network built, the weights loaded."""
