"""Does an artefact say what `hsl predict` says: the run's own validation pictures, three sizes, two batch sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from hsl.batch import IGNORE_INDEX
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import FileSource, Record
from hsl.data.loading.transforms import masks_by_head
from hsl.errors import UserError
from hsl.exporting.prediction import Prediction
from hsl.exporting.runner import Runner
from hsl.heads import Head
from hsl.verbs.ensemble.predicting import EnsembleModel
from hsl.verbs.export import gated
from hsl.verbs.predict.gated import Gating
from hsl.verbs.predict.outputs import RunModel, prediction_of

SCALES = (1.0, 0.75, 1.25)
"""Of the sides of a picture; at 1 its own bytes are decoded on both sides."""
BATCHES = (1, 4)
MOST_CHANGED, MOST_IOU, MOST_PROBABILITY = 0.001, 0.001, 1e-3
"""A share of the pixels of a picture, a difference of pooled IoU, one of the probability of an image."""
RULES = {"changed_pixels": MOST_CHANGED, "class_iou": MOST_IOU, "image_probability": MOST_PROBABILITY}
_WAY_OUT = (
    "Nothing was written. Try another `format`; where none agrees, the network has an operation that exporters "
    "translate wrongly, so take another encoder or decoder."
)
Masks = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class ParityPicture:
    """A picture that both paths read.

    Attributes:
        record: where its bytes are; its id is unique among all sizes.
        name: of the picture that it is made of.
        scale: of its sides.
        masks: by head what it shows, ``(H, W)``; none where nobody annotated it.
    """

    record: Record
    name: str
    scale: float
    masks: Masks


def parity_pictures(data: DataModule, number: int, folder: Path) -> list[ParityPicture]:
    """Pictures of the validation part, spread over it, at all `SCALES`.

    Args:
        data: of the run.
        number: of pictures.
        folder: where resized ones are kept.
    """
    prepared = data.prepared
    ids, decode = sorted(prepared.parts["val"]), Decoding.of(prepared.catalogue)
    chosen = [ids[place] for place in np.unique(np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(int))]
    folder.mkdir(parents=True)
    found = []
    for number_, name in enumerate(chosen):
        record = prepared.catalogue.records[prepared.places[name]]
        picture = decode(record)
        masks: Masks = {}
        if picture.mask is not None:
            by_head = masks_by_head(prepared.heads, torch.from_numpy(picture.mask).long()[None])
            masks = {head: mask[0].numpy() for head, mask in by_head.items()}
        for scale in SCALES:
            id_ = f"{number_:05d}-{scale:g}"
            source = record.image
            sized = masks
            if scale != 1:
                height, width = (max(1, round(scale * side)) for side in picture.image.shape[:2])
                image = cv2.resize(picture.image, (width, height), interpolation=cv2.INTER_AREA)
                path = folder / f"{id_}.png"
                _ = cv2.imwrite(str(path), image[..., ::-1])
                source = FileSource(path)
                sized = {head: _nearest(mask, (height, width)) for head, mask in masks.items()}
            found.append(ParityPicture(Record(id_, source, None, None, {}, None), name, scale, sized))
    return found


def _nearest(mask: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    resized = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.int64)


def check_parity(
    model: RunModel | EnsembleModel,
    runner: Runner,
    pictures: Sequence[ParityPicture],
    folder: Path,
    gating: Gating | None = None,
) -> dict[str, Any]:
    """Everything that was compared, see `RULES` and those of `gated`.

    Args:
        model: predicts as `hsl predict` does, with torch.
        runner: of the artefact.
        pictures: of the validation part.
        folder: for what is kept meanwhile.
        gating: the gate that is in the artefact, with torch.

    Raises:
        UserError: the artefact says something else; the message names the picture, the number and the rule.
    """
    told = torch_predictions(model, runner, [picture.record for picture in pictures], folder)
    rows, scores = [], []
    for scale in dict.fromkeys(picture.scale for picture in pictures):
        some = [picture for picture in pictures if picture.scale == scale]
        images = [runner.decode(picture.record.image.read(), picture.record.image.name) for picture in some]
        for batch in BATCHES:
            said = [
                prediction
                for start in range(0, len(images), batch)
                for prediction in runner.predict_many(images[start : start + batch])
            ]
            for picture, image, theirs in zip(some, images, said, strict=True):
                size = {"height": image.shape[0], "width": image.shape[1], "batch": batch}
                ours = told[picture.record.id]
                rows.append({"id": picture.name, **size, **compare(ours, theirs)})
                if gating is not None:
                    rows[-1]["gate"] = gated.compare_gate(gating, runner, image, ours, theirs)
                check_row(rows[-1])
            all_ours = [told[picture.record.id] for picture in some]
            for row in iou_rows([picture.masks for picture in some], all_ours, said):
                scores.append({"scale": scale, "batch": batch, **row})
                check_iou(scores[-1])
    rules = RULES if gating is None else {**RULES, **gated.RULES}
    return {"passed": True, "rules": rules, "pictures": rows, "class_iou": scores}


def torch_predictions(
    model: RunModel | EnsembleModel, runner: Runner, records: Sequence[Record], folder: Path
) -> dict[str, Prediction]:
    """By id what `hsl predict` says, with the heads of the artefact.

    Raises:
        DataError: a picture cannot be predicted.
    """
    known = runner.decoding
    decoding = Decoding(value_range=known.value_range, max_megapixels=known.max_megapixels, bits=known.bits)
    heads, limits = runner.heads, runner.manifest.thresholds
    found = model.outputs(records, decoding, _raise, _ignore, folder)
    return {name: prediction_of(outputs, heads, limits) for name, outputs in found}


def _raise(error: UserError) -> None:
    raise error


def _ignore(_: Any) -> None:
    """Nothing is said of a batch."""


def compare(ours: Prediction, theirs: Prediction) -> dict[str, Any]:
    """By head the share of changed pixels and the largest difference of a probability; of objects, of their borders."""
    changed, image, dense = {}, {}, {}
    for name, head in ours.heads.items():
        difference = float(np.abs(ours.probabilities[name] - theirs.probabilities[name]).max(initial=0.0))
        if head.kind == "image":
            image[name] = _rounded(difference)
        else:
            changed[name] = _rounded(float((ours.class_map(name) != theirs.class_map(name)).mean()))
            dense[name] = _rounded(difference)
    row: dict[str, Any] = {"changed_pixels": changed, "image_probability": image, "pixel_probability": dense}
    if ours.objects is not None and theirs.objects is not None:
        changed["objects"] = _rounded(float((borders(ours.objects) != borders(theirs.objects)).mean()))
        row["objects"] = [int(ours.objects.max(initial=0)), int(theirs.objects.max(initial=0))]
    return row


def borders(objects: NDArray[np.uint16]) -> NDArray[np.int64]:
    """What is an object (2), and where one ends at the right or below (1): the same whatever their numbers are."""
    padded = np.pad(objects, ((0, 1), (0, 1)), mode="edge")
    ends = (padded[:-1, :-1] != padded[1:, :-1]) | (padded[:-1, :-1] != padded[:-1, 1:])
    return np.asarray(ends + 2 * (objects > 0))


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a picture of which the artefact says something else.

    Raises:
        UserError: a number is above its rule.
    """
    where = f"`{row['id']}` ({row['height']} x {row['width']}, batch {row['batch']})"
    for head, share in row["changed_pixels"].items():
        if not share <= MOST_CHANGED:
            raise UserError(
                f"{where} should have at most {MOST_CHANGED:.1%} of its pixels in another class than `hsl predict` "
                f"gives. Found {share:.3%} in `{head}`. {_WAY_OUT}"
            )
    for head, difference in row["image_probability"].items():
        if not difference <= MOST_PROBABILITY:
            raise UserError(
                f"{where} should have the probabilities of `hsl predict`, to {MOST_PROBABILITY:g}. Found a difference "
                f"of {difference:.3g} in `{head}`. {_WAY_OUT}"
            )
    if "gate" in row:
        gated.check_gate(where, row["gate"])


def iou_rows(
    masks: Sequence[Masks], ours: Sequence[Prediction], theirs: Sequence[Prediction]
) -> Iterator[dict[str, Any]]:
    """By head and class the IoU of both over the annotated pixels of all pictures; classes that nowhere occur left
    out."""
    heads: Mapping[str, Head] = ours[0].heads
    for name, head in heads.items():
        seen = [place for place, of in enumerate(masks) if name in of]
        if head.kind != "dense" or not seen:
            continue
        both = [class_iou([masks[i][name] for i in seen], [said[i].class_map(name) for i in seen], len(head.classes))
                for said in (ours, theirs)]  # fmt: skip
        for label, first, second in zip(head.classes, *both, strict=True):
            if not (np.isnan(first) and np.isnan(second)):
                yield {"head": name, "class": label, "torch": _rounded(first), "artefact": _rounded(second)}


def class_iou(
    truths: Sequence[NDArray[np.int64]], maps: Sequence[NDArray[np.uint8]], num_classes: int
) -> NDArray[np.float64]:
    """IoU ``(C,)`` over all pixels that count; NaN of a class in neither."""
    counts = np.zeros((num_classes, num_classes))
    for truth, predicted in zip(truths, maps, strict=True):
        counts += confusion(truth, predicted, num_classes)
    hits, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """``(C, C)`` pixels, rows the truth."""
    known = truth != IGNORE_INDEX
    cells = num_classes * truth[known] + predicted[known]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def check_iou(row: Mapping[str, Any]) -> None:
    """Refuse a class whose IoU is another.

    Raises:
        UserError: by more than the rule.
    """
    if not abs(row["torch"] - row["artefact"]) <= MOST_IOU:
        raise UserError(
            f"The class `{row['class']}` of `{row['head']}` should have the IoU of `hsl predict`, {row['torch']:.4f}, "
            f"to {MOST_IOU:g} (pictures at {row['scale']:g} of their size, batch {row['batch']}). Found "
            f"{row['artefact']:.4f}. {_WAY_OUT}"
        )


def _rounded(value: float) -> float:
    """To 4 significant digits: the last bits of a sum are the machine's."""
    return float(f"{value:.4g}")
