"""The arguments of the data module that say how pictures are loaded, and what they should be. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from hsl.config.ranges import Limit, PositiveInt, Seed
from hsl.data.files.decode import Range
from hsl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PictureForm:
    """In what form the network sees a picture.

    Args:
        image_size: Side in pixels, or height and width.
        augmentation: ``augmentation(image_size) -> Transform`` of the training pictures.
        normalization: ``mean`` and ``std`` per channel, of pictures in [0, 1].
        evaluation_size: ``"image_size"``, or ``"source"``: pictures keep their size, batches hold one size only.
    """

    image_size: PositiveInt | Sequence[PositiveInt]
    augmentation: Callable[[tuple[int, int]], Any]
    normalization: Mapping[str, Sequence[float]]
    evaluation_size: str = "image_size"

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of ``image_size``."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return int(height), int(width)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How pictures become batches.

    Args:
        batch_size: The effective batch: pictures per step over all processes.
        cache: Where decoded pictures are kept: ``"ram"``, ``"disk"`` or ``None``.
        cache_gigabytes: Bound of the cache, for each process that trains.
        seed: Of the order and the augmentation.
        sampling: How often a training picture is drawn; ``None``: each comes once an epoch.
    """

    batch_size: PositiveInt
    cache: str | None
    cache_gigabytes: Limit
    seed: Seed
    sampling: Any = None


def check_arguments(
    image_size: int | Sequence[int],
    batch_size: int,
    num_workers: int | str,
    normalization: Mapping[str, Sequence[float]],
    evaluation_size: str = "image_size",
) -> None:
    """See `hsl.data.datamodule.DataModule`.

    Raises:
        ConfigError: An argument is outside its range; all of them are named.
    """
    findings = []
    sides = [image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) > 2 or not sides or min(sides) < 1:
        findings.append(
            "`data.image_size` should be a side of at least 1, or [height, width]. "
            f"Found `data.image_size = {image_size}`."
        )
    if batch_size < 1:
        findings.append(f"`data.batch_size` should be at least 1. Found `data.batch_size = {batch_size}`.")
    if num_workers != "auto" and (isinstance(num_workers, str) or num_workers < 0):
        findings.append(f"`data.num_workers` should be auto or at least 0. Found `data.num_workers = {num_workers}`.")
    if evaluation_size not in ("image_size", "source"):
        findings.append(
            f"`data.evaluation_size` should be image_size or source. Found `data.evaluation_size = {evaluation_size}`."
        )
    for name in ("mean", "std"):
        if len(normalization[name]) != 3:
            findings.append(f"`encoder.normalization.{name}` should have 3 values. Found {list(normalization[name])}.")
    if not min(normalization["std"]) > 0:
        findings.append(f"`encoder.normalization.std` should be above 0. Found {list(normalization['std'])}.")
    if findings:
        raise ConfigError(" ".join(findings))


def check_value_range(value_range: Sequence[float] | None, key: str) -> Range:
    """What becomes black and white, as a pair.

    Args:
        value_range: ``[black, white]``, or ``None`` where it is not set.
        key: What an error calls it.

    Raises:
        ConfigError: It is something else.
    """
    if value_range is None:
        return None
    ends = list(value_range) if isinstance(value_range, Sequence) and not isinstance(value_range, str) else []
    if len(ends) != 2 or not all(type(end) in (int, float) for end in ends) or not -inf < ends[0] < ends[1] < inf:
        raise ConfigError(
            f"`{key}` should be [black, white] with black < white. Found `{key} = {value_range}`. For pictures of 12 "
            f"bits write `{key}=[0,4095]`."
        )
    return float(ends[0]), float(ends[1])


def check_max_megapixels(max_megapixels: float, key: str) -> float:
    """Of a picture or mask.

    Raises:
        ConfigError: It is no number above 0.
    """
    if type(max_megapixels) not in (int, float) or not 0 < max_megapixels < inf:
        raise ConfigError(f"`{key}` should be a number above 0. Found `{key} = {max_megapixels}`. Usual is 300.")
    return float(max_megapixels)
