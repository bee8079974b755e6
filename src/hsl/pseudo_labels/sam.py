"""Segment Anything as a source of votes (Kirillov et al. 2023), where its weights are at hand."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hsl.errors import ConfigError

Segmenter = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.bool_]]]
HOW = (
    "Put a checkpoint of SAM in the layout of `transformers` there (config.json, preprocessor_config.json, "
    "model.safetensors; `facebook/sam-vit-base` is the smallest), or leave the source out."
)


def load_sam(
    path: str | Path, points_per_side: int = 32, predicted_iou: float = 0.88, stability: float = 0.95
) -> Segmenter:
    """The segmenter of a checkpoint on disk: picture to segments, each from a point of a grid.

    Args:
        path: folder with the checkpoint.
        points_per_side: points of the grid in each direction.
        predicted_iou: segments of which SAM thinks less are dropped.
        stability: segments that change more when the threshold moves are dropped, as IoU.

    Returns:
        A function from ``uint8 (H, W, 3)`` RGB to segments ``bool (H, W)``.

    Raises:
        ConfigError: the folder is missing or holds no SAM, or ``transformers`` is not installed.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"`sam` should be a folder with a checkpoint of SAM. Found `sam = {path}`. {HOW}")
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"`sam` needs the package `transformers` ({error}). Install `hsl[sam]`.") from error
    try:
        model = transformers.SamModel.from_pretrained(folder, local_files_only=True)
        processor = transformers.SamProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:  # a missing file, another model, weights of other shapes
        raise ConfigError(f"`sam = {path}` cannot be read as a checkpoint of SAM ({error}). {HOW}") from error
    generator = transformers.MaskGenerationPipeline(model=model.eval(), image_processor=processor.image_processor)

    def segment(image: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
        found = generator(
            Image.fromarray(image),
            points_per_crop=points_per_side,
            pred_iou_thresh=predicted_iou,
            stability_score_thresh=stability,
        )
        return [np.asarray(mask, dtype=np.bool_) for mask in found["masks"]]

    return segment


def sam_votes(sam: Segmenter, image: NDArray[np.uint8], votes: NDArray[np.float32]) -> NDArray[np.float32]:
    """SAM's segments, each for the class on which the other sources agree most inside it.

    SAM knows no class names. So a segment votes as a whole for the class with the largest sum of ``votes`` over its
    pixels (the first of equals); a segment on which the others have no opinion does not vote. Where segments overlap
    each has an equal part of the vote; a pixel in none has no opinion, 0 for all classes.

    Args:
        sam: the segmenter, such as `load_sam` gives.
        image: ``uint8 (H, W, 3)``, RGB.
        votes: ``(C, H, W)``, the weighted sum of the other sources' votes.

    Returns:
        ``float32 (C, H, W)``.

    Raises:
        ValueError: votes and picture differ in size.

    Example:
        >>> left = np.array([[True, True, False]])
        >>> votes = np.float32([[[0.75, 0.5, 1]], [[0.25, 0.5, 0]]])  # sums inside: 1.25 and 0.75
        >>> sam_votes(lambda image: [left], np.zeros((1, 3, 3), np.uint8), votes)[:, 0].tolist()
        [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if votes.shape[1:] != image.shape[:2]:
        raise ValueError(f"`votes` should have the size of the picture, {image.shape[:2]}. Found {votes.shape[1:]}.")
    result = np.zeros(votes.shape, dtype=np.float32)
    for segment in sam(image):
        sums = votes[:, segment].sum(axis=1, dtype=np.float64)
        if sums.sum() > 0:
            result[sums.argmax(), segment] += 1
    count = result.sum(axis=0)
    return np.where(count > 0, result / np.maximum(count, 1), 0).astype(np.float32)
