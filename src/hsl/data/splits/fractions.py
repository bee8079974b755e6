"""Training, validation and test pictures by shares, for data without an official split and too large for folds."""

from collections.abc import Sequence

from hsl.config.ranges import FractionAboveZero, FractionBelowOne, Seed
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan
from hsl.data.labels.image_labels import group_pictures
from hsl.data.splits.folds import assemble, check_argument, set_stop_apart
from hsl.data.splits.grouping import share_out
from hsl.errors import DataError
from hsl.files.split_file import Split


def fractions(
    catalogue: Catalogue,
    scan: Scan,
    *,
    val_fraction: FractionAboveZero,
    test_fraction: FractionBelowOne,
    groups: str | None,
    labels: str | Sequence[str] | None,
    seed: Seed,
    stop_fraction: FractionBelowOne = 0.0,
) -> Split:
    """One fold of whole groups: a share validates, a share is for the test, the rest trains.

    Every part gets its share of the groups that contain a class, for every class, by iterative stratification
    (Sechidis, Tsoumakas & Vlahavas 2011); see `hsl.data.splits.grouping.share_out`.

    Args:
        catalogue: The data set.
        scan: Its scan.
        val_fraction: Share of the groups for the validation, above 0.
        test_fraction: Share of the groups for the test; 0: no test pictures.
        groups: The attribute whose values stay whole; ``None``: each picture by itself.
        labels: Whose classes count, see `hsl.data.labels.image_labels.group_pictures`: columns of labels, or
            ``None`` for the masks.
        seed: Two seeds make two assignments.
        stop_fraction: Share of the training pictures that chooses the epoch, see `set_stop_apart`.

    Raises:
        ConfigError: An argument is outside its range.
        DataError: The attribute or a column is missing, or a part would be empty.
    """
    check_argument("val_fraction", 0 < val_fraction < 1, "in (0, 1)", val_fraction)
    check_argument("test_fraction", 0 <= test_fraction < 1 - val_fraction, "in [0, 1 - val_fraction)", test_fraction)
    units = group_pictures(catalogue, scan, groups, labels)
    shares = {"training": 1 - val_fraction - test_fraction, "validation": val_fraction, "test": test_fraction}
    parts = dict(zip(shares, share_out(units, list(shares.values()), seed), strict=True))
    empty = [name for name, share in shares.items() if share > 0 and not parts[name]]
    if empty:
        raise DataError(
            f"`{catalogue.name}` should have enough groups for each part. Found none for {', '.join(empty)}, of "
            f"{len(units.names)} groups. Set `data.split.val_fraction` and `data.split.test_fraction` larger, or "
            "`data.split.groups=null` if no two pictures show the same thing."
        )
    split = assemble("fractions", catalogue, scan, groups, seed, parts["test"], {"0": parts["validation"]})
    return set_stop_apart(split, units, stop_fraction, True)
