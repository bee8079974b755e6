"""`hsl predict`: a trained model on a folder of pictures of any size."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import track

from hsl.batch import DISTANCE, Outputs
from hsl.console import PlainConsole
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record, Source
from hsl.data.files.run_lengths import encode_classes
from hsl.data.formats.folder import read_pictures
from hsl.data.formats.picture_files import NotRead
from hsl.data.formats.severstal import COLUMNS
from hsl.data.writers.regions import Segmented
from hsl.errors import ConfigError, DataError, NonFiniteLogitsError, UserError
from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.files.names import below
from hsl.files.output_folder import OutputFolder
from hsl.heads import Head, of_kind
from hsl.metrics.objects.watershed import objects_of
from hsl.reports.page import pictures
from hsl.terminal import say
from hsl.verbs.ensemble.predicting import EnsembleModel, open_model
from hsl.verbs.predict.areas import Areas
from hsl.verbs.predict.channel_files import PredictedChannels
from hsl.verbs.predict.foreign_pictures import Notes, foreign_decoding
from hsl.verbs.predict.gated import GATE_TABLE, Gating
from hsl.verbs.predict.outputs import RunModel
from hsl.verbs.predict.scenes import Scenes
from hsl.verbs.predict.tool_files import FORMATS, Writer, told_of, writer_of
from hsl.verbs.scoring.image_results import image_row

HEAD = "segmentation"
MAX_OBJECTS = 2**16 - 1  # in a picture of 16 bits


def predict(cfg: DictConfig) -> None:
    """Segment a picture, or all of a folder: class-index masks, overlays, a table of areas; or say what they show.

    A picture that cannot be done, or is of a kind that is not read, is reported and the rest is done; then the command
    ends with exit code 2. Files that the folder of the output held before, and that are no longer made, are removed;
    see `hsl.files.output_folder` for what is never touched.

    A TIFF of more than ``max_megapixels`` is done part by part, see `hsl.verbs.predict.scenes`.

    With ``format=rle`` ``predictions.csv`` takes the place of masks and overlays: run lengths of every class but index
    0, as `hsl.data.formats.severstal` reads them. ``ClassId`` is the class index; a picture of background has no row.
    The other formats are files of annotation tools, see `hsl.data.writers`, in the same place.
    A model of overlapping channels leaves a mask for each, or rows in which ``ClassId`` is the number of the channel.
    A model with a distance head also leaves a map of object ids of 16 bits, cut apart as they are when it is scored.
    With a gate ``gate.csv`` tells which pictures it accepts; those that it refuses are written all the same.

    Raises:
        ConfigError: it is not a run folder, its model makes no masks that the format holds, or the output is taken.
        DataError: the input holds no picture, or some could not be done.
    """
    opened = open_model(cfg)
    records, rest = read_pictures(cfg.input)
    _check_format(cfg.format, opened)
    gating = Gating.open(Path(cfg.gate), opened) if cfg.gate else None
    inputs = [cfg.input, *opened.folders, *([cfg.gate] if cfg.gate else [])]
    with OutputFolder(cfg.output, "predict", inputs=inputs) as output:
        decoding = foreign_decoding(cfg, opened.facts, opened.max_megapixels)
        notes = Notes(bands=decoding.bands is not None)
        sources = {record.id: record.image for record in records}
        classes = opened.heads[HEAD].classes if HEAD in opened.heads else ()
        writer = writer_of(cfg.format, output.work, classes, output.path)
        work = _Work(output.work, cfg.format, writer, opened.heads, opened.thresholds, sources, decoding, gating)
        look = functools.partial(notes.look, sources=sources)
        scenes = Scenes.of(opened, decoding, output.work, cfg.format, gating is not None)
        large, small = scenes.among(records)
        for record in large:
            work.attempt(scenes, record)
        results = opened.outputs(small, decoding, work.broken.append, look, output.work / ".maps")
        console = PlainConsole(stderr=True)
        silent = not console.is_terminal
        for name, outputs in track(results, "predict", len(small), console=console, transient=True, disable=silent):
            work.add(name, outputs)
        work.write_tables()
        if writer:
            writer.close()
    for sentence in [
        *notes.sentences(),
        *scenes.sentences(),
        *told_of(writer),
        *(gating.sentences() if gating else []),
    ]:
        say(sentence)
    say(f"{work.num_done} {'picture' if work.num_done == 1 else 'pictures'} done: {cfg.output}")
    _tell_of_the_rest(cfg.input, len(records), work.broken, rest)


def _tell_of_the_rest(where: str, number: int, broken: Sequence[UserError], rest: NotRead) -> None:
    """Say what was not done.

    Raises:
        DataError: there were pictures among it.
    """
    sentences = []
    if broken:
        sentences.append(f"{len(broken)} of {number} pictures could not be done; the rest is.")
        sentences += map(str, broken)
    if rest.pictures:
        sentences.append(f"`{where}` holds pictures that were left out: {rest}. {rest.way_out}")
    if sentences:
        raise DataError(" ".join(sentences))
    if rest.num_others:
        say(f"{where}: {rest}")


@dataclass
class _Work:
    """What is written, picture by picture and at the end."""

    folder: Path
    format: str
    writer: Writer | None
    heads: Mapping[str, Head]
    limits: Mapping[str, list[float]]
    sources: Mapping[str, Source]
    decoding: Decoding
    gating: Gating | None = None
    broken: list[UserError] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    runs: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def num_done(self) -> int:
        """Pictures of which something is known."""
        return max(len(self.rows), len(self.labels))

    def attempt(self, scenes: Scenes, record: Record) -> None:
        """Let a scene be done, and keep its row."""
        try:
            scenes.add(record)
            self.rows.append(scenes.rows[-1])
        except (DataError, NonFiniteLogitsError) as error:
            self.broken.append(error)

    def add(self, name: str, outputs: Outputs) -> None:
        """Write what the heads say of one picture, or keep it for the tables."""
        image = functools.cache(functools.partial(self.decoding.image, self.sources[name]))  # decoded once, if at all
        if self.gating:
            self.gating.judge(name, outputs, image())
        for head in of_kind(self.heads.values(), "image"):
            self.labels.append({"id": name, **image_row(outputs[head.name], head, self.limits.get(head.name))})
        overlapping = HEAD in self.heads and self.heads[HEAD].several
        try:
            if overlapping:
                self._add_channels(PredictedChannels.of(name, outputs, self.heads[HEAD].classes), image)
            if HEAD in outputs:
                self._add_mask(name, outputs, image)
            write_further(self.folder, name, outputs, () if overlapping else self.heads.values())
        except DataError as error:
            self.broken.append(error)

    def _add_channels(self, found: PredictedChannels, image: Callable[[], NDArray[np.uint8]]) -> None:
        source = self.sources[found.name]
        self.rows.append(found.row())
        if self.format == "rle":
            self.runs += [(Path(source.name).name, *each) for each in found.runs()]
        elif self.writer:
            self.writer.add(Segmented(found.name, Path(source.name), found.layers()))
        else:
            found.write(self.folder, image())

    def _add_mask(self, name: str, outputs: Outputs, image: Callable[[], NDArray[np.uint8]]) -> None:
        probability = outputs[HEAD].softmax(dim=0).numpy()
        prediction, confidence = probability.argmax(axis=0).astype(np.uint8), probability.max(axis=0)
        classes, source = self.heads[HEAD].classes, self.sources[name]
        if self.format == "rle":
            self.runs += [(Path(source.name).name, *each) for each in encode_classes(prediction).items()]
        elif self.writer:
            objects = objects_of(outputs[HEAD], outputs[DISTANCE]) if DISTANCE in outputs else None
            self.writer.add(Segmented(name, Path(source.name), [prediction], objects))
        else:
            _write_pictures(self.folder, name, image(), prediction, confidence, classes)
        areas = Areas(name, classes)
        areas.add(prediction, confidence)
        self.rows.append(areas.row(*prediction.shape))

    def write_tables(self) -> None:
        """Write what was kept."""
        tables = {"areas.csv": pd.DataFrame(self.rows), "labels.csv": pd.DataFrame(self.labels)}
        if self.gating:
            tables[GATE_TABLE] = self.gating.table
        if self.format == "rle":
            tables["predictions.csv"] = pd.DataFrame(self.runs, columns=list(COLUMNS))
        for name, table in tables.items():
            if len(table.columns):
                write_atomically(self.folder / name, csv_of(table).encode())


def _check_format(wanted: str, model: RunModel | EnsembleModel) -> None:
    if wanted not in FORMATS:
        raise ConfigError(f"`format` should be one of {', '.join(FORMATS)}. Found `format = {wanted}`. Choose one.")
    if wanted != "png" and HEAD not in model.dense:
        raise ConfigError(
            f"`format={wanted}` should be for a run with the head `{HEAD}`. Found {sorted(model.dense) or 'no masks'}. "
            "Leave `format` away."
        )
    if wanted == "geotiff" and model.heads[HEAD].several:
        raise ConfigError(
            "`format=geotiff` should be for classes that do not overlap. Found overlapping channels. Use `format=png`, "
            "which writes a mask for each."
        )


def _write_pictures(
    output: Path,
    name: str,
    image: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    confidence: NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    _write_mask(output / "masks" / f"{name}.png", prediction)
    overlay = pictures.overlay(image, prediction, confidence, classes)
    _, png = cv2.imencode(".png", overlay[..., ::-1])
    write_atomically(output / "overlays" / f"{name}.png", png.tobytes())


def write_further(output: Path, name: str, outputs: Outputs, heads: Iterable[Head]) -> None:
    """Write the class maps of the tasks beside `HEAD`, and the objects; maps and vectors of other heads are left out.

    Args:
        output: the folder of the command.
        name: id of the picture.
        outputs: of one picture, ``(C, H, W)`` by head at its own size.
        heads: what they are; the dense ones are tasks.

    Raises:
        DataError: there are more objects than a map of 16 bits holds.
    """
    for head in outputs.keys() & {head.name for head in of_kind(heads, "dense")} - {HEAD}:
        _write_mask(below(output / "tasks", head) / f"{name}.png", outputs[head].argmax(0).byte().numpy())
    if DISTANCE not in outputs:
        return
    ids = objects_of(outputs[HEAD], outputs[DISTANCE])
    if (number := int(np.max(ids))) > MAX_OBJECTS:
        raise DataError(
            f"`{name}` should have at most {MAX_OBJECTS} objects, what a map of 16 bits holds. Found {number}. "
            "Cut the picture into parts."
        )
    _write_mask(output / "instances" / f"{name}.png", ids.astype(np.uint16))


def _write_mask(path: Path, classes: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    _, png = cv2.imencode(".png", classes)
    write_atomically(path, png.tobytes())
