"""What the scores are called, and how their numbers are shown: as `hsl.metrics.catalogue` says."""

from hsl.metrics.catalogue import SCORES

_KINDS = {"%": "share", "": "value", "pixels": "pixels", "bits": "value"}


def title_of(metric: str) -> str:
    """With its unit, as a column is headed.

    >>> title_of("miou"), title_of("macro_f1")
    ('mIoU (%)', 'macro F1 (%)')
    """
    return SCORES[metric].heading


def tta_title(metric: str) -> str:
    """As a column is headed where test-time augmentation was on.

    >>> tta_title("miou"), tta_title("nll")
    ('mIoU, TTA (%)', 'NLL, TTA')
    """
    return f"{title_of(metric).removesuffix(' (%)')}, TTA{' (%)' * title_of(metric).endswith(' (%)')}"


def part_title(part: str) -> str:
    """What a reader calls a part of the split."""
    return {
        "val": "validation part of each fold",
        "stop": "part that chose each epoch",
        "test": "held-out test part",
    }.get(part, part)


def name_of(metric: str) -> str:
    """Without its unit, as it stands in a sentence."""
    return SCORES[metric].title


def kind_of(metric: str) -> str:
    """The kind of a column of this score."""
    return _KINDS[SCORES[metric].unit]


def difference_kind(metric: str) -> str:
    """The kind of a column of differences of this score."""
    return "points" if kind_of(metric) == "share" else "signed"
