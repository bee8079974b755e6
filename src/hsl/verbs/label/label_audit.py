"""Pictures of the labels that were made: sheets per tier, tiers per class."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hsl.data.files.decoding import Decoding
from hsl.data.labels.label_table import TIERS, LabelRow
from hsl.data.prepared import PreparedData
from hsl.pseudo_labels.store import LabelFolder
from hsl.reports.page.label_sheets import Labelled, label_sheet, tier_plot

SHOWN = 24


def write_label_audit(folder: LabelFolder, data: PreparedData) -> list[Path]:
    """Draw a sheet of pictures for each tier, and a plot of the tiers of each image class, into ``audit/``.

    Args:
        folder: with all its labels.
        data: the pictures.

    Returns:
        The files.
    """
    rows, classes = list(folder.rows.values()), data.catalogue.classes
    sources = {record.id: record.image for record in data.catalogue.records}
    decoding = Decoding.of(data.catalogue)
    written = [folder.audit / "tiers_per_class.png"]
    tier_plot(written[0], tier_counts(rows))
    for tier in TIERS:
        inside = [row for row in rows if row.tier == tier]
        if not inside:
            continue
        shown = [
            Labelled(
                f"{row.id} · {row.label} · {row.quality:.2f}{'' if row.rule_passed else ' · rule failed'}",
                decoding.image(sources[row.id]),
                folder.mask(row.id),
                folder.confidence(row.id),
            )
            for row in spread(inside, SHOWN)
        ]
        title = f"{data.catalogue.name}, tier {tier}: {len(inside)} of {len(rows)} pictures, {len(shown)} shown"
        written.append(folder.audit / f"tier_{tier}.png")
        label_sheet(written[-1], title, shown, classes)
    return written


def tier_counts(rows: Sequence[LabelRow]) -> dict[str, Counter[str]]:
    """By image class, sorted: pictures in each tier."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in sorted(rows, key=lambda row: row.label):
        counts[row.label][row.tier] += 1
    return dict(counts)


def spread(rows: Sequence[LabelRow], limit: int) -> list[LabelRow]:
    """At most so many rows, evenly from all classes and from the worst quality to the best."""
    ordered = sorted(rows, key=lambda row: (row.label, row.quality, row.id))
    places = np.unique(np.linspace(0, len(ordered) - 1, min(limit, len(ordered))).round().astype(int))
    return [ordered[place] for place in places]
