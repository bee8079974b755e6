"""Readers: each turns one way of storing pictures into a ``Catalogue``, without decoding anything."""
