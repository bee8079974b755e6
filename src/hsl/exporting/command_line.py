"""``python -m hsl.exporting.runner``: an artefact on pictures of a disk, masks and a table out."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hsl.channels import channel_mask, pack
from hsl.data.files.records import FileSource
from hsl.errors import ConfigError, UserError
from hsl.exporting.prediction import Prediction
from hsl.exporting.runner import Image, Runner, scored_head
from hsl.files.io import write_atomically
from hsl.files.names import below
from hsl.files.output_folder import OutputFolder
from hsl.heads import of_kind
from hsl.terminal import say

TABLE = "predictions.json"
_VALUE_RANGE = "--value_range"


def main(arguments: Sequence[str]) -> int:
    """Predict pictures; see the README of the artefact.

    Below the output lie ``masks/<picture>.png`` (class indices; of overlapping channels a folder each, 255 where a
    channel is), ``tasks/<head>/<picture>.png`` of further dense heads, ``instances/<picture>.png`` (ids of objects, 16
    bits), and `TABLE`: a row a picture.

    Returns:
        The exit code: 0, or 2 with a sentence on stderr where something, or one of the pictures, could not be done.
    """
    parser = argparse.ArgumentParser("python -m hsl.exporting.runner", description="Predict pictures by an artefact.")
    parser.add_argument("artefact", type=Path, help="folder that `hsl export` made")
    parser.add_argument("pictures", type=Path, nargs="+", help="PNG, JPEG, TIFF, WebP, BMP, GIF, JPEG 2000 or PPM")
    parser.add_argument("--output", type=Path, required=True, help="folder for masks and table")
    parser.add_argument(_VALUE_RANGE, type=json.loads, help="[black,white] of pictures of more than 8 bits")
    parser.add_argument("--max_megapixels", type=float, help="larger pictures are refused")
    parser.add_argument("--keep", choices=("all", "one"), default="all", help="graphs of an ensemble in memory")
    parser.add_argument("--threads", type=int, help="of the processor")
    given = parser.parse_intermixed_args(arguments)
    try:
        return _predict(given)
    except UserError as error:
        say(error, error=True)
        return 2


def _predict(given: argparse.Namespace) -> int:
    names = [path.stem for path in given.pictures]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"Each picture should have a name of its own, since its mask is called so. Found `{twice[0]}` twice. "
            "Predict them apart, each to another `--output`."
        )
    opened = Runner.open(
        given.artefact, value_range=_range_of(given.value_range), max_megapixels=given.max_megapixels,
        keep=given.keep, threads=given.threads,
    )  # fmt: skip
    runner = dataclasses.replace(opened, decoding=dataclasses.replace(opened.decoding, range_key=_VALUE_RANGE))
    inputs, rows, code = [given.artefact, *given.pictures], [], 0
    with OutputFolder(given.output, "predict", inputs=inputs, way_out="Choose another `--output`.") as output:
        for name, path in zip(names, given.pictures, strict=True):
            try:
                image = runner.decode(FileSource(path).read(), str(path))
                prediction = runner.predict(image)
                rows.append({"id": name, **row_of(runner, image, prediction)})
            except UserError as error:
                say(error, error=True)
                code = 2
                continue
            _write_masks(output.work, name, runner, prediction)
        content = json.dumps(rows, indent=1, ensure_ascii=False)
        write_atomically(output.work / TABLE, content.encode())
    say(f"{len(rows)} of {len(names)} pictures done: {given.output}")
    return code


def row_of(runner: Runner, image: Image, prediction: Prediction) -> dict[str, Any]:
    """What `TABLE` says of a picture: size, pixels of each class, labels, objects and the verdict of the gate."""
    row: dict[str, Any] = {"height": image.shape[0], "width": image.shape[1], "pixels": {}, "labels": {}}
    for head in of_kind(prediction.heads.values(), "dense"):
        counts = np.bincount(prediction.class_map(head.name).ravel(), minlength=len(head.classes))
        row["pixels"][head.name] = dict(zip(head.classes, counts.tolist(), strict=True))
    for head in of_kind(prediction.heads.values(), "image"):
        probabilities = [float(value) for value in prediction.probabilities[head.name]]
        named = dict(zip(head.classes, probabilities, strict=True))
        row["labels"][head.name] = {"prediction": prediction.labels(head.name), "probabilities": named}
    if prediction.objects is not None:
        row["objects"] = int(prediction.objects.max())
    if (verdict := runner.judge(image, prediction)) is not None:
        row["gate"] = {"accepted": verdict.accepted, "reasons": verdict.reasons, "scores": dict(verdict.scores)}
    return row


def _write_masks(folder: Path, name: str, runner: Runner, prediction: Prediction) -> None:
    manifest = runner.manifest
    if channels := manifest.channels:
        codes = pack([prediction.class_map(channel) == 1 for channel in channels])
        for bit, channel in enumerate(channels):
            _write(below(folder / "masks", channel) / f"{name}.png", channel_mask(codes, bit))
    for head in of_kind(() if channels else prediction.heads.values(), "dense"):
        scored = head.name == scored_head(manifest.models[0])
        place = folder / "masks" if scored else below(folder / "tasks", head.name)
        _write(place / f"{name}.png", prediction.class_map(head.name))
    if prediction.objects is not None:
        _write(folder / "instances" / f"{name}.png", prediction.objects)


def _write(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    _, png = cv2.imencode(".png", pixels)
    write_atomically(path, png.tobytes())


def _range_of(given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    numbers = given if isinstance(given, list) and len(given) == 2 else [0, 0]
    if not all(isinstance(each, int | float) for each in numbers) or not numbers[0] < numbers[1]:
        raise ConfigError(f"`{_VALUE_RANGE}` should be `[black,white]`, rising. Found `{given}`. Give two numbers.")
    return float(numbers[0]), float(numbers[1])
