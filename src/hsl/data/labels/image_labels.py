"""What is known of each picture as a whole: one class, or which of several are present."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hsl.batch import UNKNOWN_LABEL
from hsl.data.files.records import Catalogue, Record
from hsl.data.files.scan import Scan
from hsl.data.formats.description import unfit_names
from hsl.data.formats.findings import did_you_mean
from hsl.data.splits.grouping import GroupedImages, name_some
from hsl.errors import ConfigError, DataError

HEAD = "classification"


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """Labels of all pictures of a catalogue.

    Attributes:
        classes: Their names.
        values: One class per picture: ``int64 (N,)``, -1 where it is not known. Several: ``float32 (N, K)`` of 0 and 1,
            NaN where it is not known.
    """

    classes: tuple[str, ...]
    values: NDArray[np.int64] | NDArray[np.float32]

    @property
    def several(self) -> bool:
        """Whether a picture may show several classes."""
        return self.values.ndim == 2

    def shown(self) -> NDArray[np.bool_]:
        """``bool (N, K)``: whether a picture is known to show the class."""
        if self.several:
            return np.asarray(self.values == 1)
        return np.asarray(self.values[:, None] == np.arange(len(self.classes)))

    def known(self) -> NDArray[np.bool_]:
        """``bool (N, K)``: whether it is known if a picture shows the class."""
        if self.several:
            return np.asarray(~np.isnan(self.values))
        return np.repeat((self.values != UNKNOWN_LABEL)[:, None], len(self.classes), axis=1)

    def count(self, places: Sequence[int]) -> NDArray[np.int64]:
        """``int64 (K,)``: pictures that show each class, among those at ``places``."""
        return np.asarray(self.shown()[list(places)].sum(0, dtype=np.int64))

    def count_known(self, places: Sequence[int]) -> NDArray[np.int64]:
        """``int64 (K,)``: pictures of which it is known whether they show the class, among those at ``places``."""
        return np.asarray(self.known()[list(places)].sum(0, dtype=np.int64))


def read_image_labels(
    columns: str | Sequence[str], records: Sequence[Record], key: str = "data.image_labels"
) -> ImageLabels:
    """Read the labels off the attributes of the records.

    Args:
        columns: The column that names the one class of a picture; its classes are the values, sorted. Or several
            columns of 0 and 1, one for each class. An empty cell is a label that is not known.
        records: The pictures.
        key: What errors call the option that names the columns.

    Raises:
        ConfigError: No picture has such an attribute.
        DataError: A column has one class only, or a cell is neither 0 nor 1.
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    known = sorted({name for record in records for name in record.attributes})
    if missing := [name for name in names if name not in known] or (not names and ["nothing"]):
        raise ConfigError(
            f"`{key}` should be columns of the data set, {known}. Found {missing}. "
            f"{did_you_mean(missing[0], known, 'Name others, or add them to labels.csv.')}"
        )
    return _single(names[0], records, key) if isinstance(columns, str) else _several(names, records, key)


def group_pictures(
    catalogue: Catalogue, scan: Scan, groups: str | None, labels: str | Sequence[str] | None
) -> GroupedImages:
    """The groups of a catalogue, with the classes in which the parts of a split are to be alike.

    Args:
        catalogue: The data set.
        scan: Its scan.
        groups: The attribute whose values stay whole; ``None``: each picture by itself.
        labels: Columns as in `read_image_labels`; a label that is not known counts as not shown. ``None``: the classes
            with a pixel in the mask of a picture.

    Raises:
        ConfigError: No picture has such a column.
        DataError: The attribute is missing, or a column holds something else.
    """
    units = GroupedImages.of(catalogue, scan, groups)
    if labels is None:
        return units
    records = sorted(catalogue.records, key=lambda record: record.id)
    found = read_image_labels(labels, records, "data.split.labels")
    return replace(units, present=found.shown(), classes=found.classes)


def _single(column: str, records: Sequence[Record], key: str) -> ImageLabels:
    cells = [record.attributes.get(column) for record in records]
    classes = tuple(sorted({cell for cell in cells if cell is not None}))
    if len(classes) < 2:
        raise DataError(
            f"Column `{column}` should name at least 2 classes. Found {list(classes)}. Choose another column with "
            f"`{key}`."
        )
    if unfit := unfit_names(classes):
        raise DataError(f"Column `{column}`: {' '.join(unfit)}")
    place = {name: i for i, name in enumerate(classes)}
    return ImageLabels(classes, np.array([UNKNOWN_LABEL if cell is None else place[cell] for cell in cells], np.int64))


def _several(columns: Sequence[str], records: Sequence[Record], key: str) -> ImageLabels:
    meaning = {"0": 0.0, "1": 1.0, None: float("nan")}
    table = [[record.attributes.get(column) for column in columns] for record in records]
    odd = [
        f"{record.id}: {column} = {cell}"
        for record, row in zip(records, table, strict=True)
        for column, cell in zip(columns, row, strict=True)
        if cell not in meaning
    ]
    if odd:
        raise DataError(
            f"Columns of `{key}` should hold 0, 1 or nothing. Found {name_some(odd)}. Correct labels.csv; "
            "for one class per picture name one column, not a list."
        )
    return ImageLabels(tuple(columns), np.array([[meaning[cell] for cell in row] for row in table], np.float32))
