"""What the scores are called, and how their numbers are shown: as `hsl.metrics.catalogue` says."""

from hsl.metrics.catalogue import SCORES

_KINDS = {"%": "share", "": "value", "pixels": "pixels", "bits": "value"}


def title_of(metric: str) -> str:
    """With its unit, as a column is headed.

    >>> title_of("miou"), title_of("macro_f1")
    ('mIoU (%)', 'macro F1 (%)')
    """
    return SCORES[metric].heading


def name_of(metric: str) -> str:
    """Without its unit, as it stands in a sentence."""
    return SCORES[metric].title


def kind_of(metric: str) -> str:
    """The kind of a column of this score."""
    return _KINDS[SCORES[metric].unit]


def difference_kind(metric: str) -> str:
    """The kind of a column of differences of this score."""
    return "points" if kind_of(metric) == "share" else "signed"
