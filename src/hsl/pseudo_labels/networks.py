"""Trained networks as sources of votes.

Grad-CAM tells where a classifier of images looks (Selvaraju et al. 2017, through the package ``grad-cam``), Segment
Anything what belongs together (Kirillov et al. 2023), where its weights are at hand.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from hsl.errors import ConfigError

Segmenter = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.bool_]]]
HOW = (
    "Put a checkpoint of SAM in the layout of `transformers` there (config.json, preprocessor_config.json, "
    "model.safetensors; `facebook/sam-vit-base` is the smallest), or leave the source out."
)


def class_activation(
    network: nn.Module, images: Tensor, classes: Tensor, head: str = "classification"
) -> NDArray[np.float32]:
    """Grad-CAM of one class per picture on the encoder's last feature map.

    ``max(0, sum over channels k of w_k A_k)`` with the last feature map A and ``w_k`` = the mean over its pixels of the
    gradient of the class's logit by ``A_k``; shifted and scaled to [0, 1] and brought to the size of the picture
    bilinearly, as the package does it. A map that is 0 everywhere stays 0. The network runs in eval mode and is left
    as it was: modes, gradients, ``requires_grad``, hooks. Frozen encoders do as well.

    Args:
        network: gives ``network(images)[head]``, logits ``(B, K)``; ``network.encoder`` gives the list of feature maps.
        images: ``(B, 3, H, W)``, normalised.
        classes: ``int64 (B,)`` in [0, K): the class asked for in each picture.
        head: name of the image head.

    Returns:
        ``float32 (B, H, W)`` in [0, 1], on the CPU.

    Raises:
        ValueError: a class is missing or out of range, or the network has no such head.
    """
    if classes.shape != images.shape[:1]:
        raise ValueError(f"`classes` should be one per picture, ({len(images)},). Found shape {tuple(classes.shape)}.")
    targets = [ClassifierOutputTarget(int(index)) for index in classes]
    classifier = _Classifier(network, head, classes.tolist())
    with _left_as_it_was(network), torch.enable_grad():
        cam = GradCAM(classifier, [classifier.seen])
        try:
            result: NDArray[np.float32] = cam(images, targets)
        finally:
            cam.activations_and_grads.release()
    return result


def cam_votes(cam: NDArray[np.float32], channel: int, num_classes: int) -> NDArray[np.float32]:
    """An activation as votes: ``cam`` for its class, the rest in equal parts for the others.

    (Votes for its own class alone leave fewer pixels uncertain, but halve the IoU of coffee leaf's symptoms:
    activations are diffuse, and nothing then speaks against them.)

    Args:
        cam: ``(H, W)`` in [0, 1].
        channel: the dense class that the picture's class shows as.
        num_classes: C, at least 2.

    Returns:
        ``float32 (C, H, W)``, summing to 1 over C.

    Raises:
        ValueError: the channel is none of the classes, there are fewer than two, or cam leaves [0, 1].

    Example:
        >>> cam_votes(np.float32([[0.6]]), channel=2, num_classes=3).round(2).ravel().tolist()
        [0.20000000298023224, 0.20000000298023224, 0.6000000238418579]
    """
    if num_classes < 2 or not 0 <= channel < num_classes:
        raise ValueError(f"`channel` should be one of two or more classes. Found {channel} of {num_classes}.")
    if not ((cam >= 0) & (cam <= 1)).all():
        raise ValueError(f"`cam` should lie in [0, 1]. Found values from {cam.min()} to {cam.max()}.")
    votes = np.repeat((1 - cam[None]) / (num_classes - 1), num_classes, axis=0)
    votes[channel] = cam
    return votes.astype(np.float32)


class _Classifier(nn.Module):
    """The network as the package wants it: one tensor of logits, one layer that gives the last feature map."""

    def __init__(self, network: nn.Module, head: str, classes: Sequence[int]) -> None:
        super().__init__()
        self.network, self.head, self.classes = network, head, classes
        self.seen = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with self.network.encoder.register_forward_hook(self._tap):  # type: ignore[union-attr]
            outputs = self.network(images)
        if self.head not in outputs:
            raise ValueError(f"`head` should be a head of the network, {sorted(outputs)}. Found `head = {self.head}`.")
        logits: Tensor = outputs[self.head]
        if not all(0 <= index < logits.shape[1] for index in self.classes):
            raise ValueError(f"`classes` should be in [0, {logits.shape[1]}). Found {self.classes}.")
        return logits

    def _tap(self, _module: nn.Module, _images: Any, features: Sequence[Tensor]) -> list[Tensor]:
        # A leaf: the gradient ends here, whatever of the encoder is frozen.
        return [*features[:-1], self.seen(features[-1].detach().requires_grad_())]


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """The package puts the network in eval mode, deletes its gradients and leaves its own."""
    modes = [(module, module.training) for module in network.modules()]
    state = [(weight, weight.requires_grad, weight.grad) for weight in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad, grad in state:
            weight.requires_grad_(requires_grad)
            weight.grad = grad


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
