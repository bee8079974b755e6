"""Scenes too large to be decoded as a whole: read, segmented and written part by part, in bounded memory."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from hsl.batch import DISTANCE, IGNORE_INDEX, Batch, Outputs
from hsl.console import PlainConsole
from hsl.data.bands.geo_tags import read_geo_tags
from hsl.data.files.decode import check_bits
from hsl.data.files.decoding import Decoding
from hsl.data.files.headers import Header, check_size, tiff_header
from hsl.data.files.records import FileSource, Record
from hsl.data.patches.windows import TIFF, MissingIn, largest_number, open_missing, open_scene
from hsl.data.splits.grouping import name_some
from hsl.data.writers.geotiff_masks import write_scene
from hsl.errors import DataError
from hsl.files.names import below
from hsl.heads import of_kind
from hsl.inference.predictor import Network
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.strips import columns_within, num_strips, predicted_strips
from hsl.metrics.finite import check_outputs
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.ensemble.predicting import EnsembleModel
from hsl.verbs.predict.areas import Areas
from hsl.verbs.predict.outputs import RunModel

HEAD = "segmentation"
FORMATS = ("png", "geotiff")
LOGITS = 2**28
"""Bytes of the logits that are in memory at once."""


@dataclass
class Scenes:
    """The scenes among the pictures of one call.

    Attributes:
        model: that predicts.
        decoding: of the pictures.
        folder: where it is written.
        refusal: why no scene can be done as the call stands; empty: it can.
        rows: of ``areas.csv``, a scene each.
        several: names of scenes of several pages, of which the first was read.
        without: ids of those that have no position.
    """

    model: RunModel | EnsembleModel
    decoding: Decoding
    folder: Path
    refusal: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: RunModel | EnsembleModel, decoding: Decoding, folder: Path, form: str, gated: bool) -> "Scenes":
        """Those of a call: its model, its decoding, the folder, the format, and whether a gate judges pictures."""
        return cls(model, decoding, folder, _refusal(model, form, gated))

    def among(self, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
        """The scenes, TIFFs of more than the pixels that are decoded at once, and the rest."""
        large = {record.id for record in records if self._is_scene(record)}
        return [one for one in records if one.id in large], [one for one in records if one.id not in large]

    def add(self, record: Record) -> None:
        """Write ``masks/<id>.tif`` of a scene, and ``tasks/<task>/<id>.tif`` of a model of several tasks.

        Raises:
            DataError: it cannot be read, or cannot be done as the call stands.
            NonFiniteLogitsError: a logit is not finite.
        """
        if self.refusal or not (isinstance(self.model, RunModel) and isinstance(record.image, FileSource)):
            raise DataError(
                f"`{record.image.name}` has more than the {self.decoding.max_megapixels:g} megapixels that are decoded "
                f"at once, and is predicted by windows. {self.refusal}"
            )
        path = record.image.path
        tags = read_geo_tags(path, str(path))
        if tiff_header(path, str(path)).frames > 1 and self.decoding.bands is None:
            self.several.append(f"`{path}`")
        parts = _Parts.of(self.model, path, self.decoding)
        areas = Areas(record.id, self.model.heads[HEAD].classes)
        maps: dict[str, _Map] = {}
        with ExitStack() as stack:
            for place, head, classes, confidence in parts:
                if head not in maps:
                    maps[head] = _Map(stack.enter_context(TemporaryFile(dir=self.folder)), parts.size[1])
                if head == HEAD:
                    areas.add(classes, confidence)
                maps[head].write(place, parts.where_measured(place, classes))
            for head, one in maps.items():
                folder = self.folder / "masks" if head == HEAD else below(self.folder / "tasks", head)
                write_scene(folder / f"{record.id}.tif", parts.size, one.rows, tags)
        self.rows.append(areas.row(*parts.size))
        if not tags:
            self.without.append(record.id)

    def sentences(self) -> list[str]:
        """What is said in the end."""
        if not self.rows:
            return []
        lacking = ["overlays", *(["objects"] if DISTANCE in self.model.heads else [])]
        names = name_some([f"`{row['id']}`" for row in self.rows])
        told = [
            f"{len(self.rows)} pictures of more than {self.decoding.max_megapixels:g} megapixels were done by windows, "
            f"without {' and '.join(lacking)}; their class maps are TIFFs: {names}."
        ]
        if self.several:
            told.append(f"Of each of {len(self.several)} of them the first of several pages was read.")
        if self.without:
            told.append(f"{len(self.without)} of them have no position on earth, and neither have their maps.")
        return told

    def _is_scene(self, record: Record) -> bool:
        source = record.image
        if not isinstance(source, FileSource) or source.path.suffix.lower() not in TIFF:
            return False
        try:
            header = tiff_header(source.path, source.name)
        except DataError:  # told where it is decoded
            return False
        return _is_large(header, source.name, self.decoding.max_megapixels)


def _is_large(header: Header, name: str, max_megapixels: float) -> bool:
    try:
        check_size(header, name, max_megapixels)
    except DataError:
        return True
    return False


def _refusal(model: RunModel | EnsembleModel, form: str, gated: bool) -> str:
    """Why a call cannot do scenes, and what would; empty: it can."""
    more = "or raise `max_megapixels` if there is memory for the whole picture and its maps"
    if not isinstance(model, RunModel):
        return f"This is not done with an ensemble. Predict it with one of its runs, {more}."
    if form not in FORMATS:
        return f"This is not done with `format={form}`. Set `format=geotiff`, {more}."
    if gated:
        return f"This is not done with a gate, which looks at whole pictures. Leave `gate` away, {more}."
    if HEAD not in model.heads or model.heads[HEAD].several or of_kind(model.heads.values(), "image"):
        return f"This is done with one class map alone. Use a run without image labels and channels, {more}."
    if not isinstance(model.task.predictor, SlidingWindow) or model.cfg.data.evaluation_size != "source":
        return f"Add `inference=sliding_window evaluation_size=source`, {more}."
    return ""


@dataclass(frozen=True, eq=False)
class _Parts:
    """A scene under way: iterating gives place, head, classes and confidence of each part of it."""

    model: RunModel
    name: str
    size: tuple[int, int]
    read: Callable[[int, int, int, int], NDArray[np.uint8]]
    missing: MissingIn | None

    @classmethod
    def of(cls, model: RunModel, path: Path, decoding: Decoding) -> "_Parts":
        name = str(path)
        if decoding.bits is not None and decoding.bands is None:  # of the whole scene, not of a window
            check_bits(largest_number(path), name, decoding.value_range, decoding.bits, decoding.range_key)
        channels = None if decoding.bands is None else len(decoding.bands.names)
        how = dataclasses.replace(decoding, bits=None, max_megapixels=inf)  # what is decoded is a window
        size, read = open_scene(path, how.image_of, max_megapixels=decoding.max_megapixels, channels=channels)
        return cls(model, name, size, read, open_missing(path))

    @property
    def task(self) -> SegmentationTask:
        return self.model.task

    @torch.inference_mode()
    def __iter__(self) -> Iterator[tuple[tuple[slice, slice], str, NDArray[np.uint8], NDArray[np.float32]]]:
        predictor, network = self.task.predictor, self.task.network
        if not isinstance(predictor, SlidingWindow):
            raise ValueError(f"`predictor` should be a SlidingWindow. Found {type(predictor).__name__}.")
        columns = columns_within(_known(network), predictor.window, LOGITS)
        strips = predicted_strips(predictor, _known(network), self._normalised, self.size, columns)
        console = PlainConsole(stderr=True)
        for strip in track(strips, Path(self.name).name, num_strips(predictor, self.size, columns), console=console,
                           transient=True, disable=not console.is_terminal):  # fmt: skip
            for head, logits in self._dense(strip.outputs).items():
                confidence, classes = logits.softmax(dim=0).max(dim=0)
                yield (strip.rows, strip.columns), head, classes.byte().cpu().numpy(), confidence.cpu().numpy()

    def where_measured(self, place: tuple[slice, slice], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The classes of a part, 255 where there is no measurement."""
        if self.missing is None:
            return classes
        gone = self.missing(place[0].start, place[1].start, *classes.shape)
        return np.where(gone, np.uint8(IGNORE_INDEX), classes)

    def _normalised(self, y: int, x: int, height: int, width: int) -> Tensor:
        pixels = np.ascontiguousarray(self.read(y, x, height, width).transpose(2, 0, 1))
        batch: Batch = {"image": torch.from_numpy(pixels)[None].to(self.task.device)}  # type: ignore[typeddict-item]
        return self.model.data.on_after_batch_transfer(batch, 0)["image"][0]

    def _dense(self, outputs: Outputs) -> Outputs:
        """The logits of the dense heads, and of the one in which they are fused."""
        batched = {head: logits[None] for head, logits in outputs.items()}
        check_outputs(batched, [self.name], "prediction")
        problem, shared = self.task.problem, self.task.problem.scored_head
        if problem.fuse is not None and shared is not None:
            batched[shared.name] = problem.fuse(batched)
        return {head: logits[0] for head, logits in batched.items() if self.task.heads[head].kind == "dense"}


def _known(network: Any) -> Network:
    known: Network = network
    return known


class _Map:
    """A class map on the disk, a byte per pixel, in a file that is gone when it is closed."""

    def __init__(self, file: IO[bytes], width: int) -> None:
        self._file, self._width = file, width

    def write(self, place: tuple[slice, slice], classes: NDArray[np.uint8]) -> None:
        rows, columns = place
        for row, values in zip(range(rows.start, rows.stop), classes, strict=True):
            self._file.seek(row * self._width + columns.start)
            self._file.write(values.tobytes())

    def rows(self, first: int, end: int) -> NDArray[np.uint8]:
        self._file.seek(first * self._width)
        return np.frombuffer(self._file.read((end - first) * self._width), np.uint8).reshape(-1, self._width)
