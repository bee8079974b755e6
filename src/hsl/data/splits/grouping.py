"""Groups of pictures, and how to deal them: some for the test, the rest into folds."""

import logging
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.channels import class_pixels
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan
from hsl.data.formats.findings import did_you_mean
from hsl.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class GroupedImages:
    """Pictures by the groups that must stay whole.

    Attributes:
        ids: Sorted ids of the ``N`` pictures.
        names: Sorted names of the ``G`` groups.
        group: ``int64 (N,)`` number of the group of each picture.
        present: ``bool (N, C)``: whether the mask of a picture has a pixel of a class.
        classes: Names of the ``C`` classes.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    group: NDArray[np.int64]
    present: NDArray[np.bool_]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, catalogue: Catalogue, scan: Scan, attribute: str | None) -> "GroupedImages":
        """Group the pictures of a catalogue by the values of an attribute; ``None``: each by itself.

        Raises:
            DataError: A record lacks the attribute.
            ValueError: The scan is one of another catalogue.
        """
        records = sorted(catalogue.records, key=lambda record: record.id)
        ids = tuple(record.id for record in records)
        if sorted(scan.ids) != list(ids):
            raise ValueError("`scan` should be the scan of `catalogue`. Found other ids.")
        _check_attribute(catalogue, attribute)
        values = list(ids) if attribute is None else [record.attributes[attribute] for record in records]
        counts = scan.class_counts[scan.rows(ids)]
        pixels = class_pixels(counts, len(catalogue.classes), catalogue.overlapping)
        return cls._build(ids, values, pixels > 0, catalogue.classes)

    @classmethod
    def _build(
        cls, ids: Sequence[str], values: Sequence[str], present: NDArray[np.bool_], classes: tuple[str, ...]
    ) -> "GroupedImages":
        names = sorted(set(values))
        number = {name: i for i, name in enumerate(names)}
        group = np.array([number[value] for value in values], dtype=np.int64)
        return cls(tuple(ids), tuple(names), group, present, classes)

    def without(self, ids: Collection[str]) -> "GroupedImages":
        """The same groups less some pictures; a group with none left is gone."""
        leave = set(ids)
        kept = [i for i, name in enumerate(self.ids) if name not in leave]
        values = [self.names[self.group[i]] for i in kept]
        return self._build([self.ids[i] for i in kept], values, self.present[kept], self.classes)

    def ids_of(self, groups: Collection[int]) -> list[str]:
        """Ids of the pictures of some groups."""
        wanted = set(groups)
        return [name for name, group in zip(self.ids, self.group.tolist(), strict=True) if group in wanted]

    def present_in_groups(self) -> NDArray[np.bool_]:
        """``bool (G, C)``: whether a picture of the group shows the class."""
        present = np.zeros((len(self.names), len(self.classes)), dtype=np.bool_)
        np.logical_or.at(present, self.group, self.present)
        return present

    def rarest(self, present: NDArray[np.bool_]) -> NDArray[np.int64]:
        """``int64 (M,)``: of the classes present in each row ``(M, C)`` the rarest one, C if there is none.

        The rarest class is in the fewest groups; of equals, in the fewest pictures; of equals, the later one.
        """
        pictures = self.present.sum(axis=0)
        frequency = self.present_in_groups().sum(axis=0) * (len(self.ids) + 1) + pictures
        never = (len(self.ids) + 1) ** 2
        backwards = np.where(present, frequency, never)[:, ::-1].argmin(axis=1)
        rarest: NDArray[np.int64] = np.where(present.any(axis=1), len(self.classes) - 1 - backwards, len(self.classes))
        return rarest


def official_test(catalogue: Catalogue) -> list[str]:
    """Ids of the pictures whose official part is "test".

    Raises:
        DataError: There is none.
    """
    ids = [record.id for record in catalogue.records if record.split == "test"]
    if not ids:
        raise DataError(
            f"`{catalogue.name}` should name its official test pictures in splits.csv. Found none. Draw "
            "them with `data.split.test_from=fraction`."
        )
    return ids


def set_apart(
    units: GroupedImages, fraction: float, seed: int, stratified: bool, name: str = "test_fraction"
) -> list[str]:
    """Draw whole groups that hold a share of the pictures.

    The strata (groups of the same rarest class) are gone through from the smallest to the largest. Of each,
    groups are drawn in random order until the pictures that show its class are as near as can be to the
    share; the last and largest one makes the number of all pictures as near as can be.

    Args:
        units: The pictures.
        fraction: Share of the pictures in [0, 1).
        seed: Of the drawing.
        stratified: ``False`` draws from all groups alike.
        name: What the share is called in ``data.split``.

    Raises:
        DataError: The share is not 0, and smaller than what the smallest group would be.
    """
    if fraction == 0:
        return []
    generator = np.random.default_rng(seed)
    sizes = np.bincount(units.group, minlength=len(units.names))
    shown, strata = sizes, np.zeros_like(sizes)
    if stratified:
        strata = units.rarest(units.present_in_groups())
        shows = units.rarest(units.present) == strata[units.group]
        shown = np.bincount(units.group, weights=shows, minlength=len(units.names))
    in_stratum = np.bincount(strata, weights=shown)
    *smaller, largest = sorted(np.unique(strata).tolist(), key=lambda s: (in_stratum[s], s))
    drawn: list[int] = []
    for stratum in smaller:
        members = generator.permutation(np.flatnonzero(strata == stratum))
        drawn += _nearest(members, shown[members], fraction * in_stratum[stratum])
    members = generator.permutation(np.flatnonzero(strata == largest))
    drawn += _nearest(members, sizes[members], fraction * len(units.ids) - sizes[drawn].sum())
    if not drawn:
        raise DataError(
            f"`{name}` should be enough for one group. Found `{name} = {fraction}` of "
            f"{len(units.ids)} pictures in {len(units.names)} groups. Set `data.split.{name}` to 0 "
            "or to a larger share."
        )
    return units.ids_of(drawn)


def deal(units: GroupedImages, num_folds: int, stratify: str | None, seed: int) -> list[list[str]]:
    """Deal the groups into folds.

    Args:
        units: The pictures.
        num_folds: How many folds.
        stratify: ``"rarest_class"``, ``"all_classes"`` or ``None``, see `hsl.data.splits.folds.kfold`.
        seed: Of the dealing.

    Returns:
        The ids of each fold.

    Raises:
        DataError: There are fewer groups than folds.
    """
    if len(units.names) < num_folds:
        raise DataError(
            f"`num_folds` should be at most the number of groups, {len(units.names)}. Found `num_folds = "
            f"{num_folds}`. Set `data.split.num_folds` lower; each group has to stay whole."
        )
    # scikit-learn takes two seconds to import, and what is wrong with a data set needs none of it
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
    from sklearn.model_selection import StratifiedGroupKFold

    _warn_of_rare_classes(units, num_folds)
    if stratify == "all_classes" and len(units.classes) > 1:
        splitter = MultilabelStratifiedKFold(num_folds, shuffle=True, random_state=seed)
        present = units.present_in_groups().astype(np.int64)
        return [units.ids_of(val.tolist()) for _, val in splitter.split(present, present)]
    labels = units.rarest(units.present)
    if stratify is None or np.bincount(labels).max() < num_folds:
        labels = np.zeros_like(labels)  # sizes alone; also where every stratum is smaller than the folds
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # said by _warn_of_rare_classes, with the names
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = [val for _, val in splitter.split(labels, labels, units.group)]
    return [[units.ids[i] for i in val] for val in parts]


def share_out(units: GroupedImages, shares: Sequence[float], seed: int) -> list[list[str]]:
    """Deal the groups into parts of given sizes, each with its share of the groups that contain a class.

    Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011): the class in the fewest groups left goes first, each
    of its groups to the part that lacks most of it. Shares are of groups: of pictures they are met as far as the groups
    are alike in size.

    Args:
        units: The pictures.
        shares: Share of the groups for each part; they add up to 1.
        seed: Of the order of the groups, and of what is as good either way.

    Returns:
        The ids of each part.
    """
    from iterstrat.ml_stratifiers import IterativeStratification  # as in `deal`

    _warn_of_rare_classes(units, sum(share > 0 for share in shares))
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(units.names))
    parts = IterativeStratification(units.present_in_groups()[order], np.asarray(shares), generator)
    return [units.ids_of(order[parts == part].tolist()) for part in range(len(shares))]


def name_some(names: Sequence[str], limit: int = 5) -> str:
    """The first few of many names, and how many more there are.

    >>> name_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _nearest(members: NDArray[np.int64], sizes: NDArray[Any], wanted: float) -> list[int]:
    """As many of the first members as come nearest to the wanted sum of sizes."""
    sums = np.concatenate([[0], np.cumsum(sizes)])
    count = int(np.abs(sums - wanted).argmin())
    return [int(member) for member in members[:count]]


def _check_attribute(catalogue: Catalogue, attribute: str | None) -> None:
    without = [r.id for r in catalogue.records if attribute is not None and attribute not in r.attributes]
    if not without:
        return
    ways = (
        "Complete the column in labels.csv, name another attribute with `data.split.groups=NAME`, or, if "
        "no two pictures show the same thing, take each by itself with `data.split.groups=null`."
    )
    known = sorted({name for record in catalogue.records for name in record.attributes})
    if attribute not in known:
        listed = ", ".join(known) or "none"
        raise DataError(
            f"The records of `{catalogue.name}` should have the attribute `{attribute}`. Found: {listed}. "
            f"{did_you_mean(str(attribute), known, ways)}"
        )
    raise DataError(
        f"All records of `{catalogue.name}` should have the attribute `{attribute}`. Found none for "
        f"{name_some(without)}. {ways}"
    )


def _warn_of_rare_classes(units: GroupedImages, num_parts: int) -> None:
    counts = units.present_in_groups().sum(axis=0).tolist()
    rare = [f"{name} ({n})" for name, n in zip(units.classes, counts, strict=True) if 0 < n < num_parts]
    if rare:
        log.warning(
            "Classes in fewer groups than the %d folds or parts, so absent from some of them: %s.",
            num_parts,
            ", ".join(rare),
        )
