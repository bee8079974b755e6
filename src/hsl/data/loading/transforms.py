"""From a decoded picture to what the network sees: augmentation, resizing, normalisation."""

import copy
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsl.batch import IGNORE_INDEX, Batch
from hsl.config.ranges import NonNegativeFloat
from hsl.data.loading.resizing import resize
from hsl.data.tasks import Heads
from hsl.errors import ConfigError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks a server for a newer release
import albumentations as A

Masks = dict[str, NDArray[np.uint8]]
Part = Mapping[str, NonNegativeFloat | Sequence[NonNegativeFloat] | Literal[False] | None] | Literal[False] | None


class Transform(Protocol):
    """``uint8 (H, W, 3)`` and masks by head -> the same of another size. Equal keys give equal results."""

    def __call__(
        self, image: NDArray[np.uint8], masks: Masks, key: tuple[int, ...]
    ) -> tuple[NDArray[np.uint8], Masks]: ...


class TrainingTransform:
    """A chain of albumentations whose every random draw follows from the key of the sample.

    All parts draw from one pair of generators. (``Compose.set_random_seed`` would give each part its own, all with one
    seed: an image would then be flipped upside down exactly when it is flipped left to right.)

    Args:
        parts: Applied in this order.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = list(parts)
        self._bits = np.random.PCG64()
        self._python = random.Random()
        self._chain = A.Compose(self._parts)
        self._chain.set_random_state(np.random.Generator(self._bits), self._python)

    def __call__(self, image: NDArray[np.uint8], masks: Masks, key: tuple[int, ...]) -> tuple[NDArray[np.uint8], Masks]:
        sequence = np.random.SeedSequence(key)
        self._bits.state = np.random.PCG64(sequence).state
        self._python.seed(int(sequence.generate_state(1, np.uint64)[0]))
        result = self._chain(image=image, masks=list(masks.values()))
        return result["image"], dict(zip(masks, result["masks"], strict=True))

    def of_bands(self, colours: Sequence[int]) -> "TrainingTransform":
        """The same for pictures of other channels: colour is changed of ``colours`` alone, red, green and blue."""
        parts = [copy.deepcopy(part) for part in self._parts if colours or not isinstance(part, A.ColorJitter)]
        return TrainingTransform([_JitterSome(part, colours) if isinstance(part, A.ColorJitter) else part
                                  for part in parts])  # fmt: skip


class _JitterSome(A.ColorJitter):  # type: ignore[misc]
    """The colour jitter of some channels; the others stay as they are."""

    def __init__(self, jitter: A.ColorJitter, channels: Sequence[int]) -> None:
        super().__init__(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, p=jitter.p)
        self.channels = list(channels)

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        result = img.copy()
        result[..., self.channels] = super().apply(np.ascontiguousarray(img[..., self.channels]), **params)
        return result


@dataclass(frozen=True)
class EvaluationTransform:
    """Brings the picture to ``size`` (height, width), or leaves it at its own (``None``, for predictors that take any).

    Masks keep theirs: it is the source that is scored.
    """

    size: tuple[int, int] | None

    def __call__(self, image: NDArray[np.uint8], masks: Masks, key: tuple[int, ...]) -> tuple[NDArray[np.uint8], Masks]:
        del key
        return (image if self.size is None else resize(image, self.size)), masks


def training_transform(
    image_size: tuple[int, int],
    *,
    flips: Part,
    rot90: Part,
    resized_crop: Part,
    rotation: Part,
    colour: Part,
    blur: Part,
) -> TrainingTransform:
    """Build the augmentation of the training pictures; ``None`` or ``False`` turns a part off.

    Pictures are resized with averaging where they shrink, masks take the nearest pixel, and mask pixels that
    a rotation brings in from outside the picture are ``IGNORE_INDEX``.

    Args:
        image_size: Height and width of the result.
        flips: ``horizontal`` and ``vertical``: the probability of each; ``None`` or ``False`` is 0.
        rot90: ``probability`` of a turn by a random multiple of 90 degrees.
        resized_crop: ``scale``: share of the picture's area that is cut out, drawn from this range.
            ``ratio``: factor on the aspect ratio of the picture, log-uniform in this range. (torchvision
            draws the aspect ratio itself; but the evaluation sees the whole picture squeezed to
            ``image_size``, so the picture's own ratio is the centre.)
            ``probability`` of a cut; without one the whole picture is resized.
        rotation: ``degrees``: the largest angle to either side; ``fill``: the value of pixels from outside in
            the picture; ``probability``.
        colour: ``brightness``, ``contrast``, ``saturation``: the factor is drawn from 1 ± this; ``hue``:
            shift in turns of the colour circle, ± this; ``None`` or ``False`` is 0; ``probability``.
        blur: ``sigma``: range of the Gaussian's standard deviation in pixels of the result; ``probability``;
            ``kernel``: side of the window in pixels, odd; ``None`` is one that follows sigma.

    Raises:
        ConfigError: A part has an unknown or missing parameter, or one outside its range.
    """
    turns = _part("rot90", rot90, _rot90)
    cut = _part("resized_crop", resized_crop, lambda **given: [ResizedCrop(image_size, **given)])
    cut = cut or [ResizedCrop(image_size, scale=(1.0, 1.0), ratio=(1.0, 1.0))]
    square = image_size[0] == image_size[1]
    return TrainingTransform(
        [
            # Turning the small result is cheaper, but would swap the sides of one that is not square.
            *(cut + turns if square else turns + cut),
            *_part("flips", flips, _flips),
            *_part("rotation", rotation, _rotation),
            *_part("colour", colour, _colour),
            *_part("blur", blur, _blur),
        ]
    )


class ResizedCrop(A.DualTransform):  # type: ignore[misc]
    """Brings a random part of the picture to one size. For the arguments see ``training_transform``."""

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], probability: float = 1.0
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"`scale` should be a range within (0, 1]. Found `scale = {list(scale)}`.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"`ratio` should be a range above 0. Found `ratio = {list(ratio)}`.")
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` should be in [0, 1]. Found `probability = {probability}`.")
        super().__init__(p=1.0)  # the result has `size` in any case
        self.size, self.scale, self.ratio, self.probability = size, tuple(scale), tuple(ratio), probability

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        del data
        height, width = params["shape"][:2]
        if self.probability < 1 and self.py_random.random() >= self.probability:
            return {"window": (slice(0, height), slice(0, width))}
        area = self.py_random.uniform(*self.scale)
        stretch = np.exp(self.py_random.uniform(*np.log(self.ratio)))
        crop_height = min(height, max(1, round(height * np.sqrt(area / stretch))))
        crop_width = min(width, max(1, round(width * np.sqrt(area * stretch))))
        top = self.py_random.randint(0, height - crop_height)
        left = self.py_random.randint(0, width - crop_width)
        return {"window": (slice(top, top + crop_height), slice(left, left + crop_width))}

    def apply(self, img: NDArray[Any], window: tuple[slice, slice], **_: Any) -> NDArray[Any]:
        return resize(img[window], self.size)

    def apply_to_mask(self, mask: NDArray[Any], window: tuple[slice, slice], **_: Any) -> NDArray[Any]:
        height, width = self.size
        result: NDArray[Any] = cv2.resize(mask[window], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return result


def normalized(batch: Batch, mean: Tensor, std: Tensor) -> Batch:
    """A batch as it travels (everything ``uint8``) -> as the network and the losses take it.

    Done where the batch is already on its device: the queue between processes and the way to the accelerator
    then carry a quarter of the bytes for pictures, an eighth for masks.

    Args:
        batch: ``image`` is ``uint8 (B, 3, H, W)``, the masks ``uint8``.
        mean: Per channel, of pictures in [0, 1]; ``(3, 1, 1)`` on the device of the batch.
        std: The same.

    Returns:
        A new batch with ``float32`` pictures and ``int64`` masks; a target ``reconstruction`` is now the picture in
        [0, 1], and so are the maps of teachers.
    """
    result = batch.copy()
    picture = batch["image"].to(torch.float32).div_(255)
    if "reconstruction" in batch.get("targets", {}):
        if picture.shape[1] != 3:
            raise ConfigError(
                f"A head `reconstruction` should get red, green and blue. Found {picture.shape[1]} channels. "
                "Choose another task, or take `bands` out of dataset.yaml."
            )
        result["targets"] = {**batch["targets"], "reconstruction": picture.clone()}
    result["image"] = picture.sub_(mean).div_(std)
    if "teachers" in batch:
        said = batch["teachers"]
        result["teachers"] = {
            head: one.float() / 255 if one.dtype == torch.uint8 else one for head, one in said.items()
        }
    if "masks" in batch:
        result["masks"] = {head: mask.long() for head, mask in batch["masks"].items()}
    return result


def masks_by_head(heads: Heads, source: Tensor) -> dict[str, Tensor]:
    """The mask of every head ``int64 (B, H, W)`` from that of the data set, of the same shape."""
    if heads.flat:
        return {heads.global_head: source}
    return {head: torch.from_numpy(table).long().to(source.device)[source] for head, table in heads.tables.items()}


def _part(name: str, given: Part, make: Callable[..., list[Any]]) -> list[Any]:
    if given is None or given is False:
        return []
    try:
        return make(**given)
    except (TypeError, ValueError) as error:
        shown = dict(given) if isinstance(given, Mapping) else given
        raise ConfigError(
            f"`augmentation.{name} = {shown}` cannot be built: {' '.join(str(error).split())} "
            f"Correct it, or turn it off with `augmentation.{name}=null`."
        ) from error


def _flips(horizontal: float | None, vertical: float | None) -> list[Any]:
    return [A.HorizontalFlip(p=horizontal or 0.0), A.VerticalFlip(p=vertical or 0.0)]


def _rot90(probability: float) -> list[Any]:
    return [A.RandomRotate90(p=probability)]


def _rotation(degrees: float, fill: float, probability: float) -> list[Any]:
    return [A.Rotate((-degrees, degrees), fill=fill, fill_mask=IGNORE_INDEX, p=probability)]


def _colour(
    brightness: float | None, contrast: float | None, saturation: float | None, hue: float | None, probability: float
) -> list[Any]:
    strengths = [strength or 0.0 for strength in (brightness, contrast, saturation, hue)]
    return [A.ColorJitter(*strengths, p=probability)]


def _blur(sigma: Sequence[float], probability: float, kernel: int | None = None) -> list[Any]:
    if kernel is not None and (kernel < 3 or kernel % 2 == 0):
        raise ValueError(f"`kernel` should be an odd number of at least 3, or null. Found `kernel = {kernel}`.")
    sides = (kernel or 0, kernel or 0)  # a single number would be a range from 0
    return [A.GaussianBlur(blur_limit=sides, sigma_limit=(sigma[0], sigma[1]), p=probability)]
