"""What the scores are called, and how their numbers are shown."""

TITLES = {
    "miou": "mIoU (%)",
    "foreground_iou": "mIoU of the foreground (%)",
    "micro_iou": "micro IoU (%)",
    "mean_dice": "mean Dice (%)",
    "pixel_accuracy": "pixel accuracy (%)",
    "boundary_iou": "boundary IoU (%)",
    "boundary_f1": "boundary F1 (%)",
    "ece": "ECE (%)",
    "nll": "NLL",
    "brier": "Brier score",
}
IMAGE_TITLES = {
    "accuracy": "accuracy (%)",
    "balanced_accuracy": "balanced accuracy (%)",
    "macro_f1": "macro F1 (%)",
    "micro_f1": "micro F1 (%)",
    "macro_precision": "macro precision (%)",
    "macro_recall": "macro recall (%)",
    "micro_precision": "micro precision (%)",
    "micro_recall": "micro recall (%)",
    "macro_auroc": "AUROC (%)",
    "macro_average_precision": "average precision (%)",
    "exact_match": "exact match (%)",
}
KINDS = {name: "value" if name in ("nll", "brier") else "share" for name in (*TITLES, *IMAGE_TITLES)}


def title_of(metric: str) -> str:
    """With its unit, as a column is headed.

    >>> title_of("miou"), title_of("macro_f1")
    ('mIoU (%)', 'macro F1 (%)')
    """
    return (TITLES | IMAGE_TITLES)[metric]


def name_of(metric: str) -> str:
    """Without its unit, as it stands in a sentence."""
    return title_of(metric).removesuffix(" (%)")


def difference_kind(metric: str) -> str:
    """The kind of a column of differences of this score."""
    return "points" if KINDS[metric] == "share" else "signed"
