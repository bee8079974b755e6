"""What is known of each picture as a whole: one class, or which of several are present."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsl.config import ConfigError, DataError
from hsl.data.grouping import name_some
from hsl.data.records import Record

HEAD = "classification"
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """Labels of all pictures of a catalogue.

    Attributes:
        classes: Their names.
        values: One class per picture: ``int64 (N,)``, -1 where it is not known. Several: ``float32 (N, K)`` of 0 and 1,
            NaN where it is not known.
    """

    classes: tuple[str, ...]
    values: Tensor

    @property
    def several(self) -> bool:
        """Whether a picture may show several classes."""
        return self.values.ndim == 2

    def count(self, places: Sequence[int]) -> Tensor:
        """``int64 (K,)``: pictures that show each class, among those at ``places``."""
        values = self.values[list(places)]
        if self.several:
            return (values == 1).sum(0)
        return torch.bincount(values[values != UNKNOWN], minlength=len(self.classes))

    def count_known(self, places: Sequence[int]) -> Tensor:
        """``int64 (K,)``: pictures of which it is known whether they show the class, among those at ``places``."""
        values = self.values[list(places)]
        known = ~values.isnan() if self.several else (values != UNKNOWN)[:, None].expand(-1, len(self.classes))
        return known.sum(0)


def read_image_labels(columns: str | Sequence[str], records: Sequence[Record]) -> ImageLabels:
    """Read the labels off the attributes of the records.

    Args:
        columns: The column that names the one class of a picture; its classes are the values, sorted. Or several
            columns of 0 and 1, one for each class. An empty cell is a label that is not known.
        records: The pictures.

    Raises:
        ConfigError: No picture has such an attribute.
        DataError: A column has one class only, or a cell is neither 0 nor 1.
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    known = sorted({name for record in records for name in record.attributes})
    if missing := [name for name in names if name not in known] or (not names and ["nothing"]):
        raise ConfigError(
            f"`data.image_labels` should be columns of the data set, {known}. Found {missing}. "
            "Name others, or add them to labels.csv."
        )
    return _single(names[0], records) if isinstance(columns, str) else _several(names, records)


def _single(column: str, records: Sequence[Record]) -> ImageLabels:
    cells = [record.attributes.get(column) for record in records]
    classes = tuple(sorted({cell for cell in cells if cell is not None}))
    if len(classes) < 2:
        raise DataError(
            f"Column `{column}` should name at least 2 classes. Found {list(classes)}. Choose another column with "
            "`data.image_labels`."
        )
    place = {name: i for i, name in enumerate(classes)}
    return ImageLabels(classes, torch.tensor([UNKNOWN if cell is None else place[cell] for cell in cells]))


def _several(columns: Sequence[str], records: Sequence[Record]) -> ImageLabels:
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
            f"Columns of `data.image_labels` should hold 0, 1 or nothing. Found {name_some(odd)}. Correct labels.csv; "
            "for one class per picture name one column, not a list."
        )
    return ImageLabels(tuple(columns), torch.tensor([[meaning[cell] for cell in row] for row in table]))
