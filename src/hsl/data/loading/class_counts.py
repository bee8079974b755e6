"""How often each class occurs in a part of the split, by head: what class weights are made of."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hsl.channels import class_pixels
from hsl.data.files.scan import Scan
from hsl.data.labels.image_labels import HEAD, ImageLabels
from hsl.data.tasks import Heads

Counts = dict[str, NDArray[np.int64]]


def class_counts(heads: Heads, scan: Scan, ids: Sequence[str], labels: ImageLabels | None) -> Counts:
    """By head ``int64 (C,)``: pixels of each class, ignored ones left out; pictures, for the image head."""
    rows = scan.rows(ids)
    counts = {head: n.sum(0) for head, n in heads.count(scan.class_counts[rows]).items()}
    return counts if labels is None else counts | {HEAD: labels.count(rows.tolist())}


def presence(heads: Heads, scan: Scan, ids: Sequence[str], labels: ImageLabels | None) -> Counts:
    """By head ``int64 (C,)``: valid pixels of the pictures that show the class (Eigen & Fergus 2015).

    For the image head: pictures of which it is known whether they show the class.
    """
    rows = scan.rows(ids)
    found = heads.count_presence(scan.class_counts[rows])
    return found if labels is None else found | {HEAD: labels.count_known(rows.tolist())}


def mask_presence(heads: Heads, scan: Scan, ids: Sequence[str]) -> NDArray[np.bool_]:
    """``(N, C)``: whether a picture's mask shows a class of the data set."""
    counts = scan.class_counts[scan.rows(ids)]
    num_classes = len(heads.classes[heads.global_head]) if heads.overlapping else heads.num_source_classes
    return class_pixels(counts, num_classes, heads.overlapping) > 0
