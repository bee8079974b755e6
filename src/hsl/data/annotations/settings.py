"""What a reader of annotations is told about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hsl.data.files.headers import MAX_MEGAPIXELS
from hsl.data.formats.findings import did_you_mean, shown
from hsl.errors import ConfigError

Boxes = Literal["fill", "ignore", "skip"]
Unannotated = Literal["background", "skip"]

Classes = Mapping[str, str | Sequence[str]] | Sequence[str] | None
"""Names of classes in their order, each perhaps with the labels that it holds; ``None``: every label is a class."""


@dataclass(frozen=True)
class Settings:
    """Of a reader; the keys of ``data.reader`` have the same names.

    Attributes:
        classes: See `Classes`; a label that they do not hold is background.
        background: What class 0 is called; regions of a label of this name belong to it.
        boxes: What a box without an outline is: ``fill``: its pixels are those of the object; ``ignore``: they do not
            count; ``skip``: nothing; ``None``: an error.
        line_width: Of lines, in pixels; 0: they are left out; ``None``: a line is an error.
        unannotated: What a picture without annotation shows: ``background`` alone, or nothing known (``skip``: it is
            left out).
        max_megapixels: A larger picture is refused before anything is drawn.
    """

    classes: Classes = None
    background: str = "background"
    boxes: Boxes | None = None
    line_width: float | None = None
    unannotated: Unannotated = "skip"
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        for key, value, known in (
            ("boxes", self.boxes, (*get_args(Boxes), None)),
            ("unannotated", self.unannotated, get_args(Unannotated)),
        ):
            if value not in known:
                words = ", ".join(str(word) if word else "null" for word in known)
                way = did_you_mean(str(value), [word for word in known if word], f"Choose one of {words}.")
                raise ConfigError(f"`data.reader.{key}` should be one of {words}. Found {shown(value)}. {way}")
        if self.line_width is not None and not 0 <= self.line_width <= 1000:
            raise ConfigError(
                f"`data.reader.line_width` should be null or in [0, 1000] pixels. Found {self.line_width}. Set it to "
                "the width of the lines, or to 0 to leave them out."
            )
        if not isinstance(self.background, str) or not self.background.strip():
            raise ConfigError("`data.reader.background` should be the name of class 0. Found none. Give it one.")
        if isinstance(self.classes, str) or not isinstance(self.classes, Mapping | Sequence | None):
            raise ConfigError(
                f"`data.reader.classes` should be a list of names, or name: [labels]. Found {shown(self.classes)}. "
                "Write `data.reader.classes=[crack,hole]`."
            )

    def labels_of(self) -> dict[str, tuple[str, ...]] | None:
        """The labels of each class but the background; ``None``: every label is a class."""
        if self.classes is None:
            return None
        pairs = self.classes.items() if isinstance(self.classes, Mapping) else ((name, name) for name in self.classes)
        table = {
            str(name): (labels,) if isinstance(labels, str) else tuple(str(label) for label in labels)
            for name, labels in pairs
        }
        table.pop(self.background, None)
        return table
