"""Masks without a hand: made from the class of each picture, judged, checked by eye, refined."""
