"""Windows over a picture of any size, blended with Gaussian weights."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hsl.batch import Outputs
from hsl.config.ranges import PositiveInt
from hsl.errors import ConfigError
from hsl.inference.geometry import SIGMA, WEIGHT_FLOOR, starts
from hsl.inference.predictor import Network, reflected_to


class Place(NamedTuple):
    """Number of the picture and corner of a window in it."""

    picture: int
    top: int
    left: int


class SlidingWindow:
    r"""Runs the network on overlapping windows of one size and blends their logits.

    .. math:: f(x)_p = \frac{\sum_i w_{p - c_i} f(x_i)_p}{\sum_i w_{p - c_i}}, \qquad
        w_d = \max\left(e^{-|d|^2 / 2 \sigma^2}, 10^{-3}\right), \qquad \sigma = \mathtt{window} / 8

    over the windows ``x_i`` with centres ``c_i`` that cover the pixel ``p``. They start every ``stride`` pixels;
    the last one of each row and column is moved back to the border. Weights and logits are summed in float32. A
    picture below the window size grows by reflection, so the network only ever sees whole windows.

    The windows of all pictures form one sequence, cut into batches. On the device of the pictures lie one
    batch and, per head, a band as wide as the window across the shorter side of the picture; what no later window
    reaches moves to ``stitch_device``. So the device never holds the logits of a whole picture. (Values are
    those of MONAI's ``sliding_window_inference``; its buffered mode keeps one head only, and its stitching off the
    device moves each pixel as often as windows cover it.)

    Args:
        window: side in pixels; one that the network takes.
        stride: pixels between neighbouring windows, in [1, window]. Two thirds or half of the window.
        windows_per_batch: windows that the network sees at once, >= 1.
        stitch_device: where the logits of the whole pictures are put together, e.g. ``cpu``.

    Raises:
        ConfigError: an argument is outside its range.
    """

    def __init__(
        self, window: PositiveInt, stride: PositiveInt, windows_per_batch: PositiveInt, stitch_device: str
    ) -> None:
        findings = [
            f"`{name}` should be in [1, {bound}]. Found `{name} = {value}`."
            for name, value, bound in (
                ("window", window, 16384),
                ("stride", stride, window),
                ("windows_per_batch", windows_per_batch, 4096),
            )
            if not 1 <= value <= bound
        ]
        if findings:
            raise ConfigError(f"{' '.join(findings)} Change `inference`.")
        self.window, self.stride = window, stride
        self.windows_per_batch = windows_per_batch
        self.stitch_device = torch.device(stitch_device)

    def __call__(self, network: Network, images: Tensor) -> Outputs:
        """Logits ``float32 (B, C, H, W)`` of every head on ``stitch_device``, for ``images`` ``(B, 3, H, W)``.

        Raises:
            ConfigError: a head is one of whole images, or answers at another size than its input.
        """
        height, width = images.shape[-2:]
        images = reflected_to(images, max(height, self.window), max(width, self.window))
        axis = -1 if width >= height else -2
        places = list(self._places(images.shape, axis))
        weights = gaussian(self.window, images.device)
        total = weights.new_zeros(images.shape[-2:])
        for _, top, left in (place for place in places if place.picture == 0):
            self.cut(total, top, left).add_(weights)
        bands: dict[str, _Band] = {}
        for start in range(0, len(places), self.windows_per_batch):
            batch = places[start : start + self.windows_per_batch]
            outputs = self.answers(network, images, batch)
            for head, logits in outputs.items():
                if head not in bands:
                    shape = (len(images), logits.shape[1], *images.shape[-2:])
                    bands[head] = _Band(shape, axis, self.window, images.device, self.stitch_device)
                for place, one in zip(batch, logits, strict=True):
                    bands[head].add(place, one, weights / self.cut(total, place.top, place.left))
            del outputs, logits, one  # the next batch takes their place, not one more
        return {head: band.finish()[..., :height, :width] for head, band in bands.items()}

    def _places(self, shape: Sequence[int], axis: int) -> Iterator[Place]:
        """All windows, picture by picture, the longer side (``axis``) outermost: the order of the bands."""
        tops, lefts = (starts(side, self.window, self.stride) for side in shape[-2:])
        for picture in range(shape[0]):
            if axis == -1:
                yield from (Place(picture, top, left) for left in lefts for top in tops)
            else:
                yield from (Place(picture, top, left) for top in tops for left in lefts)

    def cut(self, pixels: Tensor, top: int, left: int) -> Tensor:
        """The window of ``(..., H, W)`` with this corner; a view."""
        return pixels[..., top : top + self.window, left : left + self.window]

    def answers(self, network: Network, images: Tensor, batch: Sequence[Place]) -> Outputs:
        """Logits ``(N, C, window, window)`` of the windows at some places.

        Raises:
            ConfigError: a head is one of whole images, or answers at another size than its input.
        """
        windows = torch.stack([self.cut(images[place.picture], place.top, place.left) for place in batch])
        outputs: Outputs = network(windows)
        for head, output in outputs.items():
            if network.known_heads[head].kind == "image" or output.shape[-2:] != windows.shape[-2:]:
                raise ConfigError(
                    f"Head `{head}` should give logits at the size of its input, (B, C, {self.window}, {self.window}), "
                    f"for a sliding window. Found shape {tuple(output.shape)}. Evaluate it with `inference=whole`."
                )
        return outputs


class _Band:
    """The logits of one head under way: summed where the network is, put together where they are stitched.

    The sums are as broad as a window. Where both devices are one there is nothing to save, and the result itself
    holds them.

    Args:
        shape: ``(B, C, H, W)`` of the result.
        axis: -1 or -2: along which the windows advance.
        window: side in pixels.
        device: where windows are summed.
        stitch_device: where the result lies.
    """

    def __init__(
        self, shape: Sequence[int], axis: int, window: int, device: torch.device, stitch_device: torch.device
    ) -> None:
        self._result = torch.zeros(*shape, device=stitch_device)
        self._axis, self._window = axis, window
        self._picture, self._start = 0, 0
        self._sums: Tensor | None = None
        if device != self._result.device:
            self._sums = torch.zeros_like(self._result[0].narrow(axis, 0, window), device=device)

    def add(self, place: Place, logits: Tensor, weights: Tensor) -> None:
        """Add ``logits`` ``(C, window, window)`` times ``weights``, which sum to one over all windows."""
        top, left = place.top, place.left
        sums = self._result[place.picture]
        if self._sums is not None:
            self._reach(place, self._sums)
            sums = self._sums
            top, left = (top, 0) if self._axis == -1 else (0, left)
        sums[:, top : top + self._window, left : left + self._window].addcmul_(logits.float(), weights)

    def finish(self) -> Tensor:
        """The result, complete."""
        if self._sums is not None:
            self._advance(self._window, self._sums)
        return self._result

    def _reach(self, place: Place, sums: Tensor) -> None:
        along = place.left if self._axis == -1 else place.top
        if place.picture != self._picture:
            self._advance(self._window, sums)
            self._picture, self._start = place.picture, 0
        elif along != self._start:
            self._advance(along - self._start, sums)

    def _advance(self, pixels: int, sums: Tensor) -> None:
        """Move what no later window reaches to the result, and the rest to the front."""
        left = self._window - pixels
        finished = sums.narrow(self._axis, 0, pixels)
        self._result[self._picture].narrow(self._axis, self._start, pixels).copy_(finished)
        sums.narrow(self._axis, 0, left).copy_(sums.narrow(self._axis, pixels, left).clone())
        sums.narrow(self._axis, left, pixels).zero_()
        self._start += pixels


def gaussian(window: int, device: torch.device) -> Tensor:
    """Weights ``(window, window)``: 1 in the middle, sigma an eighth of the window, nowhere below ``WEIGHT_FLOOR``."""
    distance = torch.arange(window, device=device) - (window - 1) / 2
    profile = torch.exp(-(distance**2) / (2 * (SIGMA * window) ** 2))
    return (profile[:, None] * profile).clamp_(min=WEIGHT_FLOOR)
