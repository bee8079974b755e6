"""Which label of an annotation is which class."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hsl.batch import IGNORE_INDEX
from hsl.data.annotations.settings import Settings
from hsl.data.formats.description import unfit_names
from hsl.data.formats.findings import Findings, did_you_mean

IGNORED_LABELS = ("__ignore__", "_ignore_", "ignore", "void")
"""Regions of these labels do not count."""
BACKGROUND_LABELS = ("_background_", "__background__")
"""Regions of these labels, or of the name of class 0, are background."""


@dataclass(frozen=True)
class Labels:
    """The classes, and the class index of each label; 255 where it does not count, ``None`` where it is left out."""

    classes: tuple[str, ...]
    index: Mapping[str, int | None]


def read_labels(
    in_order: Iterable[str], settings: Settings, root: Path, findings: Findings, used: Collection[str] | None = None
) -> Labels:
    """Which label is which class.

    Args:
        in_order: The labels of the data set, in the order that classes have without ``data.reader.classes``.
        settings: Of the reader.
        root: Of the data set, for messages.
        findings: Gets what is wrong.
        used: The labels of regions that count; a label without any is no class and is told of. ``None``: all are
            used.
    """
    known = list(dict.fromkeys(in_order))
    index: dict[str, int | None] = dict.fromkeys(known)
    zero = (settings.background, *BACKGROUND_LABELS)
    index |= {label: 0 for label in known if label in zero}
    index |= {label: IGNORE_INDEX for label in known if label in IGNORED_LABELS}
    free = [label for label in known if index[label] is None]
    table = settings.labels_of()
    if table is None:
        lone = [label for label in free if used is not None and label not in used]
        if lone and len(lone) < len(free):
            free = [label for label in free if label not in lone]
            findings.not_read.append(
                f"`{root}`: labels without a region that counts are no classes: {', '.join(lone)}."
            )
        table = {label: (label,) for label in free}
    else:
        held = [label for labels in table.values() for label in labels]
        for label in dict.fromkeys(held):
            if label not in known:
                way = did_you_mean(label, known, f"Choose from {', '.join(known[:20])}.")
                findings.add(f"`data.reader.classes` holds `{label}`, which no annotation of `{root}` has. {way}")
            if held.count(label) > 1:
                findings.add(
                    f"`data.reader.classes` holds the label `{label}` more than once. Remove it from the others."
                )
        left = [label for label in free if label not in held]
        if left:
            findings.not_read.append(
                f"`{root}`: labels that `data.reader.classes` lacks are background: {', '.join(left)}."
            )
    for number, labels in enumerate(table.values(), start=1):
        index |= dict.fromkeys(labels, number)
    classes = (settings.background, *table)
    for sentence in unfit_names(classes):
        findings.add(f"`{root}`: {sentence} Or name classes yourself: `data.reader.classes={{NAME:[LABEL,...]}}`.")
    if len(classes) > IGNORE_INDEX:
        findings.add(
            f"`{root}` should have at most {IGNORE_INDEX} classes. Found {len(classes)}. Choose some: `classes`."
        )
    if not table and not findings.sentences:
        findings.add(
            f"`{root}` should have a class besides `{settings.background}`. Found none. Annotate some regions."
        )
    return Labels(classes, index)
