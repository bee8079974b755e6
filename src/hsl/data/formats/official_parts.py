"""The official parts of a data set and the words that others use for them."""

PARTS = ("train", "val", "test")
_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def official_part(word: str) -> str | None:
    """The part that a word means, whatever its case; ``None`` where it means none.

    Example:
        >>> official_part("Validation"), official_part("fold 1")
        ('val', None)
    """
    return _WORDS.get(word.strip().casefold())
