"""``manifest.json``: what an artefact is made of, and all that a picture needs to travel through it.

An artefact is a folder that predicts without the suite: the manifest, the graphs that it names, and whatever else was
put there, each file with its SHA-256. It has one writer and one reader, here.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from hsl.errors import ConfigError, DataError
from hsl.files.io import null_for_nan, read_json, sha256_of, write_atomically
from hsl.files.typed_json import typed
from hsl.heads import Head

MANIFEST = "manifest.json"
GATE_FOLDER, GATE_ENCODER = "gate", "encoder.onnx"
"""Where the gate lies, if there is one, and in it the graph of its features: ``image`` -> ``features (1, D)``."""
FORMAT = 1
"""Of the manifest; a reader takes this and older ones."""

_AGAIN = "Copy the artefact again, or export it again."

Runtime = Literal["onnx", "openvino", "torch_export"]
"""What runs the graphs: onnxruntime, OpenVINO, torch."""


@dataclass(frozen=True)
class Window:
    """A sliding window: its side and its stride in pixels, see `hsl.inference.sliding_window`."""

    side: int
    stride: int


@dataclass(frozen=True)
class Fusion:
    """How all dense heads become one more, see `hsl.inference.global_space.fuse`.

    Attributes:
        head: the one that is made.
        tables: head -> its class of each source class.
        members: the global class of each source class.
    """

    head: str
    tables: dict[str, tuple[int, ...]]
    members: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """One network, and how a picture gets to it.

    Attributes:
        file: its graph, below the artefact: one input ``image``, ``float32 (B, 3, H, W)``, normalised; an output for
            each of `outputs`, by that name.
        outputs: the heads of the network: dense, image and map.
        evaluation_size: height and width that every picture is resized to; ``None``: it keeps its own.
        mean: of each channel, of pictures in [0, 1].
        std: the same.
        stride: the whole picture grows to a multiple of it, by reflection.
        window: the network sees windows instead of the whole picture.
        orientations: of test-time augmentation, see `hsl.inference.tta`; none: it looks once.
        input_size: height and width of the only input that the graph takes; ``None``: any multiple of `stride`.
        batch: the only number of inputs that the graph takes at once; ``None``: any.
        fusion: of several dense heads that exclude each other.
        member: of the ensemble that the model belongs to; models of one member are its folds.
    """

    file: str
    outputs: tuple[Head, ...]
    evaluation_size: tuple[int, int] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stride: int
    window: Window | None = None
    orientations: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None
    batch: int | None = None
    fusion: Fusion | None = None
    member: str = ""


@dataclass(frozen=True)
class Decoding:
    """How a file becomes RGB, see `hsl.data.files.decoding`.

    Attributes:
        value_range: what becomes black and white in a picture of more than 8 bits; ``None``: the range of its bits.
        bits: how many bits the largest number of a picture of 16 bits may have; ``None``: any.
        max_megapixels: a larger picture is refused before it is decoded.
    """

    value_range: tuple[float, float] | None
    bits: tuple[int, int] | None
    max_megapixels: float


@dataclass(frozen=True)
class Combination:
    """How the members of an ensemble become one head, see `hsl.inference.combining`.

    Attributes:
        members: whose outputs are read, sorted.
        formula: which combination, and its numbers.
        temperature: that calibrates the result of an image head; ``None``: it stays.
    """

    members: tuple[str, ...]
    formula: dict[str, Any]
    temperature: float | None = None


@dataclass(frozen=True)
class Manifest:
    """What an artefact is.

    Attributes:
        name: of the model, for people.
        runtime: what runs its graphs.
        heads: what a prediction says: the dense and the image heads.
        decoding: how a file becomes RGB.
        models: one; or those of an ensemble, the folds of a member beside each other.
        combinations: of an ensemble, by head; empty for one model.
        thresholds: of the image heads that may show several classes, one a class.
        channels: the dense heads that may overlap, in the order of the bits of `hsl.channels`.
        licence: of the model, as whoever exported it says.
        provenance: of the run, as far as it may be known elsewhere.
        files: the other files of the artefact -> SHA-256.
        format: of the manifest.
    """

    name: str
    runtime: Runtime
    heads: tuple[Head, ...]
    decoding: Decoding
    models: tuple[Model, ...]
    combinations: dict[str, Combination] = field(default_factory=dict)
    thresholds: dict[str, tuple[float, ...]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    licence: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a folder that is otherwise complete, with the SHA-256 of every file in it.

    Returns:
        What was written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}
    complete = dataclasses.replace(manifest, files=files, format=FORMAT)
    content = json.dumps(null_for_nan(dataclasses.asdict(complete)), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / MANIFEST, content.encode())
    return complete


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact, all of whose files are there and unchanged.

    Raises:
        ConfigError: it is no artefact, or one of a newer format.
        DataError: the manifest is damaged; a file is missing or has changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(
            f"`{folder}` should be an artefact, which `hsl export` makes. Found no {MANIFEST} in it. Give the folder "
            "that was its `output`."
        )
    page = read_json(path)
    if not isinstance(page["format"], int) or page["format"] > FORMAT:
        raise ConfigError(
            f"`{path}` should be of format {FORMAT} or older. Found format {page['format']}. Take the version of hsl "
            "that made it, or a newer one, or export the model with this one."
        )
    manifest: Manifest = typed(page, Manifest, path, _AGAIN)
    if not manifest.models:
        raise DataError(f"`{path}` should name a model. Found none. {_AGAIN}")
    _check_files(folder, manifest)
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name in (*manifest.files, *(model.file for model in manifest.models)):
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or name not in manifest.files:
            raise DataError(
                f"`{folder / MANIFEST}` should name files of its folder, each with a SHA-256. Found `{name}`. {_AGAIN}"
            )
        if not (folder / name).is_file():
            raise DataError(f"`{folder}` should have the file {name}. Found none. {_AGAIN}")
        if sha256_of(folder / name) != manifest.files[name]:
            raise DataError(
                f"`{folder / name}` should have the SHA-256 that {MANIFEST} says. Found another: it was changed or "
                f"damaged. {_AGAIN}"
            )
