"""Draws damage onto a painting and records which pixels it took.

All functions change a ``Panel`` in place. Widths and radii are in pixels of a finished picture, each of
which is ``zoom`` pixels of the canvas along each side, so that damage stays thin and small
whatever the size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hsl.data.demo.painting import Canvas, fractal, noise

Floats = NDArray[np.float32]

KINDS = ("crack", "scratch", "paint_loss", "stain", "puncture")


@dataclass(slots=True)
class Panel:
    """A painting and its damage.

    Attributes:
        canvas: ``float32 (S, S, 3)``, RGB in [0, 255]; changed by every damage.
        ids: ``int32 (S, S)``: 0, or the number of the object that a pixel belongs to.
        kinds: ``kinds[n]`` is the index in ``KINDS`` of object ``n + 1``.
        zoom: Pixels of the canvas per pixel of a finished picture.
        width: Width of cracks and scratches in pixels of a finished picture.
        contrast: 1: as strong as drawn; 0: invisible.
    """

    canvas: Canvas
    zoom: float
    width: float
    contrast: float
    ids: NDArray[np.int32] = field(init=False)
    kinds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = np.zeros(self.canvas.shape[:2], np.int32)

    def shade(self, alpha: Floats, colour: Floats | tuple[float, float, float]) -> None:
        """Paint ``colour`` with ``alpha`` in [0, 1]."""
        share = np.asarray(self.contrast * alpha[..., None], np.float32)
        self.canvas += (np.asarray(colour, np.float32) - self.canvas) * share

    def mark(self, kind: str, alpha: Floats) -> None:
        """Make a new object of the pixels that ``alpha`` covers by half or more."""
        self.kinds.append(KINDS.index(kind))
        self.ids[alpha >= 0.5] = len(self.kinds)


def add_damage(rng: Generator, panel: Panel, kinds: tuple[str, ...], density: float) -> None:
    """Add objects of the given kinds, the later ones of ``_MAKERS`` on top of the earlier ones.

    Args:
        rng: Decides number, place and form.
        panel: Changed in place.
        kinds: Some of ``KINDS``; there is at least one object of each.
        density: 1 gives 1 to 3 objects of a kind; more or fewer in proportion.
    """
    for kind, (make, most) in _MAKERS.items():
        if kind in kinds:
            for _ in range(max(1, round(density * rng.integers(1, most + 1)))):
                make(rng, panel)


def crack(rng: Generator, panel: Panel) -> None:
    """A dark line that wanders and branches, with a raised edge that catches the light."""
    step = 3 * panel.zoom
    length = rng.uniform(0.2, 0.4) * len(panel.ids)
    paths, starts = [], [(_place(rng, panel), rng.uniform(0, 2 * np.pi), int(length / step))]
    while starts:
        point, heading, steps = starts.pop()
        path = [point]
        for walked in range(steps):
            heading += rng.normal(0, 0.3)
            point = point + step * np.asarray([np.cos(heading), np.sin(heading)])
            path.append(point)
            if rng.random() < 0.09:
                turn = rng.choice([-1, 1]) * rng.uniform(0.6, 1.3)
                starts.append((point, heading + turn, (steps - walked) // 2))
        paths.append(np.asarray(path))
    alpha = _lines(panel, paths)
    edge = _shifted(alpha, panel.zoom, panel.zoom) * (1 - alpha)
    panel.shade(0.45 * edge, panel.canvas + 60)
    panel.shade(alpha, (26, 18, 12))
    panel.mark("crack", alpha)


def scratch(rng: Generator, panel: Panel) -> None:
    """One or two nearly straight pale grooves side by side, with a shadow on one side."""
    length, heading = rng.uniform(0.2, 0.4) * len(panel.ids), rng.uniform(0, 2 * np.pi)
    along = np.asarray([np.cos(heading), np.sin(heading)])
    across = np.asarray([-along[1], along[0]])
    middle, bow = _place(rng, panel), rng.normal(0, 0.06) * length
    share = np.linspace(-0.5, 0.5, 24)[:, None]
    paths = []
    for number in range(rng.integers(1, 3)):
        start = middle + across * number * rng.uniform(4, 7) * panel.zoom + along * rng.normal(0, 0.1) * length
        paths.append(start + share * length * along + (1 - 4 * share**2) * bow * across)
    alpha = _lines(panel, paths)
    shadow = _shifted(alpha, panel.zoom, panel.zoom) * (1 - alpha)
    panel.shade(0.5 * shadow, (30, 24, 18))
    panel.shade(0.9 * alpha, (240, 232, 214))
    panel.mark("scratch", alpha)


def paint_loss(rng: Generator, panel: Panel) -> None:
    """A flake with jagged rim has fallen off: pale ground, shaded where the paint around it stands higher."""
    radius = rng.uniform(3.5, 8) * panel.zoom
    alpha = _patch(panel, _blob(rng, panel, radius, roughness=0.22))
    shape = (panel.ids.shape[0], panel.ids.shape[1])
    chalk = rng.uniform(0.88, 1.02) + 0.05 * noise(rng, shape, (2 * panel.zoom, 2 * panel.zoom))
    panel.shade(alpha, chalk[..., None] * np.asarray((208, 188, 156), np.float32))
    rim = alpha * (1 - _shifted(alpha, panel.zoom, panel.zoom))
    panel.shade(0.75 * rim, (40, 28, 20))
    panel.mark("paint_loss", alpha)


def stain(rng: Generator, panel: Panel) -> None:
    """A brown tide mark: the painting shows through, the rim is darkest."""
    shape = (panel.ids.shape[0], panel.ids.shape[1])
    radius = rng.uniform(8, 14) * panel.zoom
    rows, columns = np.indices(shape, dtype=np.float32)
    x, y = _place(rng, panel)
    stretch, turn = rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)
    across = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    down = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    depth = 1 - np.hypot(across * stretch, down / stretch) / radius + 0.16 * fractal(rng, shape, radius)
    alpha = np.asarray(np.clip(depth * radius / (2 * panel.zoom) + 0.5, 0, 1), np.float32)
    rim = np.asarray(alpha * np.exp(-((depth * radius / (2.5 * panel.zoom)) ** 2)), np.float32)
    tint = np.asarray((0.62, 0.44, 0.24), np.float32)
    panel.shade(alpha, panel.canvas * tint + np.asarray((22, 12, 0), np.float32))
    panel.shade(0.55 * rim, (44, 24, 8))
    panel.mark("stain", alpha)


def puncture(rng: Generator, panel: Panel) -> None:
    """A small hole with torn, pale rim."""
    centre, radius = _place(rng, panel), rng.uniform(1.8, 3.4) * panel.zoom
    torn = _patch(panel, _blob(rng, panel, radius + 1.2 * panel.zoom, roughness=0.18, centre=centre))
    hole = _patch(panel, _blob(rng, panel, radius, roughness=0.08, centre=centre))
    panel.shade(0.85 * torn, (188, 166, 132))
    panel.shade(hole, (8, 6, 5))
    panel.mark("puncture", np.maximum(torn, hole))


_MAKERS: dict[str, tuple[Callable[[Generator, Panel], None], int]] = {
    "stain": (stain, 1),
    "paint_loss": (paint_loss, 3),
    "crack": (crack, 2),
    "scratch": (scratch, 2),
    "puncture": (puncture, 3),
}


def _place(rng: Generator, panel: Panel) -> NDArray[np.float64]:
    """A point ``(x, y)`` in the middle of the panel, which every view shows."""
    return rng.uniform(0.25, 0.75, 2) * len(panel.ids)


def _blob(
    rng: Generator,
    panel: Panel,
    radius: float,
    roughness: float,
    centre: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    centre = _place(rng, panel) if centre is None else centre
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    waves = sum(np.cos(k * angles + rng.uniform(0, 2 * np.pi)) / k for k in (2, 3, 5))
    lengths = radius * (1 + roughness * waves + 0.4 * roughness * rng.standard_normal(36))
    contour: NDArray[np.float64] = centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return contour


def _patch(panel: Panel, contour: NDArray[np.float64]) -> Floats:
    inside = np.zeros(panel.ids.shape, np.uint8)
    cv2.fillPoly(inside, [_fixed(contour)], 255, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(inside, np.float32) / np.float32(255)


def _lines(panel: Panel, paths: list[NDArray[np.float64]]) -> Floats:
    """Lines of the width asked for; OpenCV's own thick lines are up to a pixel wider."""
    side = len(panel.ids)
    drawn = np.full((2 * side, 2 * side), 255, np.uint8)  # twice as fine, for widths between whole pixels
    cv2.polylines(drawn, [_fixed(2 * path) for path in paths], False, 0, 1, shift=4)
    distance = cv2.distanceTransform(drawn, cv2.DIST_L2, cv2.DIST_MASK_5)
    alpha = np.clip(panel.width * panel.zoom - distance, 0, 1)
    return np.asarray(cv2.resize(alpha, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Coordinates in sixteenths of a pixel, as OpenCV draws them with ``shift=4``."""
    return np.rint(points * 16).astype(np.int32)


def _shifted(alpha: Floats, right: float, down: float) -> Floats:
    move = np.asarray([[1, 0, right], [0, 1, down]], np.float32)
    return np.asarray(cv2.warpAffine(alpha, move, alpha.shape[::-1]), np.float32)
