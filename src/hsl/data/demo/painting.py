"""Draws old paintings: a scene, the strokes of a brush, the ground it is painted on, and old varnish.

A canvas is ``float32 (S, S, 3)``, RGB in [0, 255]. Places and lengths are shares of its side.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Colour = tuple[float, float, float]

MATERIALS = ("canvas", "plaster", "wood")

_UMBER, _OCHRE, _SIENNA = (70.0, 48.0, 32.0), (196.0, 150.0, 76.0), (140.0, 78.0, 44.0)
_WHITE, _BLACK, _SKIN = (226.0, 214.0, 186.0), (34.0, 28.0, 26.0), (214.0, 168.0, 128.0)
_BLUE, _GREEN, _RED = (58.0, 76.0, 112.0), (84.0, 96.0, 56.0), (158.0, 56.0, 42.0)


def paint(rng: Generator, side: int, material: str) -> Canvas:
    """Paint one panel.

    Args:
        rng: Decides everything about it.
        side: Side of the canvas in pixels.
        material: What it is painted on, one of ``MATERIALS``.
    """
    scenes: tuple[Callable[[Generator, int], Canvas], ...] = (landscape, portrait, still_life, seascape)
    canvas = scenes[rng.integers(len(scenes))](rng, side)
    return age(rng, ground(rng, brush(rng, canvas), material))


def noise(rng: Generator, shape: tuple[int, int], cell: tuple[float, float]) -> NDArray[np.float32]:
    """Smooth noise with standard deviation near 1 and features of about ``cell`` (height, width) pixels."""
    coarse = [max(2, round(length / size) + 1) for length, size in zip(shape, cell, strict=True)]
    values = rng.standard_normal(coarse, dtype=np.float32)
    return np.asarray(cv2.resize(values, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def fractal(rng: Generator, shape: tuple[int, int], cell: float, octaves: int = 4) -> NDArray[np.float32]:
    """Noise with features of ``cell`` pixels and of half, a quarter ... of that, ever weaker."""
    layers = [noise(rng, shape, (cell / 2**k, cell / 2**k)) / 2**k for k in range(octaves)]
    return np.asarray(sum(layers), dtype=np.float32)


def landscape(rng: Generator, side: int) -> Canvas:
    """Hills one behind the other, trees, a house, under a cloudy sky."""
    canvas = _sky(rng, side, float(rng.uniform(0.4, 0.55)))
    horizon = float(rng.uniform(0.38, 0.52))
    near = _mixed(_GREEN, _SIENNA, rng.uniform(0, 0.7))
    for depth in np.linspace(0.0, 1.0, 4):
        ridge = horizon + 0.34 * depth + 0.05 * noise(rng, (2, side), (1, side * 0.3))[0]
        ridge += 0.012 * noise(rng, (2, side), (1, side * 0.05))[0]
        _fill_below(canvas, ridge, _mixed((150.0, 156.0, 150.0), near, depth))
    if rng.random() < 0.6:
        _house(rng, canvas, float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.55, 0.65)))
    for _ in range(rng.integers(3, 8)):
        _tree(rng, canvas, float(rng.uniform(0.02, 0.98)), float(rng.uniform(0.6, 0.95)))
    return canvas


def seascape(rng: Generator, side: int) -> Canvas:
    """Ships on a rough sea."""
    horizon = float(rng.uniform(0.5, 0.62))
    canvas = _sky(rng, side, horizon)
    rows = np.arange(side, dtype=np.float32)[:, None] / side
    waves = noise(rng, (side, side), (side * 0.015, side * 0.09)) * (0.4 + rows)
    water = np.asarray(_mixed(_BLUE, _GREEN, rng.uniform(0, 0.6)), np.float32) + 26 * waves[..., None]
    _blend(canvas, water, (rows > horizon).astype(np.float32) * np.ones((1, side), np.float32))
    for _ in range(rng.integers(1, 4)):
        x, scale = float(rng.uniform(0.15, 0.85)), float(rng.uniform(0.08, 0.22))
        _ship(rng, canvas, x, horizon + scale * 0.15, scale)
    return canvas


def portrait(rng: Generator, side: int) -> Canvas:
    """Head and shoulders before a dark ground."""
    back = _mixed(_UMBER, _GREEN, rng.uniform(0, 0.5))
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = np.asarray(back, np.float32) * (0.9 + 0.18 * fractal(rng, (side, side), side * 0.4))[..., None]
    x, y, size = rng.uniform(0.42, 0.58), rng.uniform(0.36, 0.44), rng.uniform(0.14, 0.18)
    cloth = (_BLACK, _RED, _BLUE, _SIENNA)[rng.integers(4)]
    hair = _mixed(_BLACK, _OCHRE, rng.uniform(0, 0.8))
    _ball(canvas, (x, y + 4.1 * size), (2.6 * size, 2.5 * size), cloth)
    _ball(canvas, (x, y + 1.75 * size), (1.05 * size, 0.5 * size), _WHITE)
    _ball(canvas, (x, y + 1.2 * size), (0.42 * size, 0.75 * size), _mixed(_SKIN, _UMBER, 0.25))
    _ball(canvas, (x, y - 0.1 * size), (1.12 * size, 1.4 * size), hair)
    _ball(canvas, (x, y + 0.1 * size), (0.84 * size, 1.15 * size), _SKIN)
    for sign in (-1, 1):
        _ball(canvas, (x + sign * 0.34 * size, y - 0.02 * size), (0.17 * size, 0.08 * size), _WHITE)
        _ball(canvas, (x + sign * 0.34 * size, y - 0.02 * size), (0.075 * size, 0.075 * size), _BLACK)
        _ball(canvas, (x + sign * 0.34 * size, y - 0.24 * size), (0.24 * size, 0.05 * size), hair)
    _ball(canvas, (x + 0.05 * size, y + 0.3 * size), (0.1 * size, 0.26 * size), _mixed(_SKIN, _SIENNA, 0.3))
    _ball(canvas, (x, y + 0.7 * size), (0.25 * size, 0.08 * size), _RED)
    if rng.random() < 0.5:
        _ball(canvas, (x, y - 0.95 * size), (1.5 * size, 0.35 * size), cloth)
        _ball(canvas, (x, y - 1.3 * size), (0.9 * size, 0.6 * size), cloth)
    return canvas


def still_life(rng: Generator, side: int) -> Canvas:
    """Fruit and a jug on a table."""
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = np.asarray(_mixed(_UMBER, _BLACK, rng.uniform(0, 0.6)), np.float32)
    canvas += 12 * fractal(rng, (side, side), side * 0.5)[..., None]
    edge = float(rng.uniform(0.55, 0.66))
    _fill_below(canvas, np.full(side, edge, np.float32), _mixed(_SIENNA, _OCHRE, rng.uniform(0, 0.6)))
    x, size = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.12, 0.17))
    jug = (_BLUE, _WHITE, _SIENNA)[rng.integers(3)]
    _ball(canvas, (x, edge - 0.9 * size), (size, 1.25 * size), jug)
    _ball(canvas, (x, edge - 2.2 * size), (0.45 * size, 0.6 * size), jug)
    _ball(canvas, (x, edge - 2.7 * size), (0.55 * size, 0.14 * size), _mixed(jug, _BLACK, 0.6))
    for _ in range(rng.integers(4, 9)):
        radius = float(rng.uniform(0.045, 0.085))
        at = (float(rng.uniform(0.12, 0.88)), edge + float(rng.uniform(-0.02, 0.22)))
        _ball(canvas, (at[0] + 0.4 * radius, at[1] + 0.85 * radius), (1.2 * radius, 0.35 * radius), _UMBER)
        _ball(canvas, at, (radius, radius), (_RED, _OCHRE, _GREEN, (118.0, 60.0, 78.0))[rng.integers(4)])
    return canvas


def brush(rng: Generator, canvas: Canvas) -> Canvas:
    """Make contours wobble and lay strokes over flat areas."""
    shape = (canvas.shape[0], canvas.shape[1])
    side = shape[0]
    rows, columns = np.indices(shape, dtype=np.float32)
    rows += side * 0.004 * noise(rng, shape, (side * 0.04, side * 0.04))
    columns += side * 0.004 * noise(rng, shape, (side * 0.04, side * 0.04))
    wobbly = cv2.remap(canvas, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    flat, steep = (
        noise(rng, shape, (side * 0.008, side * 0.06)),
        noise(rng, shape, (side * 0.06, side * 0.008)),
    )
    where = 1 / (1 + np.exp(-3 * noise(rng, shape, (side * 0.2, side * 0.2))))
    strokes = where * flat + (1 - where) * steep
    hue = noise(rng, shape, (side * 0.03, side * 0.05))[..., None] * np.asarray([5, 1, -5], np.float32)
    return np.asarray(wobbly * (1 + 0.06 * strokes[..., None]) + hue, dtype=np.float32)


def ground(rng: Generator, canvas: Canvas, material: str) -> Canvas:
    """Let the material show through the paint."""
    shape = (canvas.shape[0], canvas.shape[1])
    side = shape[0]
    rows, columns = np.indices(shape, dtype=np.float32)
    if material == "canvas":
        period = side / 64
        rows += period * 0.3 * noise(rng, shape, (side * 0.1, side * 0.1))
        weave = np.sin(2 * np.pi * columns / period) * np.sin(2 * np.pi * rows / period)
        relief = 0.05 * weave + 0.02 * noise(rng, shape, (2, 2))
    elif material == "wood":
        rings = columns / side * 26 + 1.6 * noise(rng, shape, (side * 0.7, side * 0.12))
        relief = 0.05 * np.sin(2 * np.pi * rings) + 0.035 * noise(rng, shape, (side * 0.25, 2.5))
    elif material == "plaster":
        relief = 0.05 * fractal(rng, shape, side * 0.05) + 0.03 * noise(rng, shape, (2, 2))
    else:
        raise ValueError(f"`material` should be one of {MATERIALS}. Found `material = {material!r}`.")
    return np.asarray(canvas * (1 + relief[..., None]), dtype=np.float32)


def age(rng: Generator, canvas: Canvas) -> Canvas:
    """Fade the colours, yellow the varnish unevenly and darken the rim."""
    side = canvas.shape[0]
    grey = canvas.mean(axis=2, keepdims=True)
    faded = grey + 0.85 * (canvas - grey)
    thickness = 0.5 + 0.12 * noise(rng, (side, side), (side * 0.35, side * 0.35))
    tint = 1 - thickness[..., None] * np.asarray([0.06, 0.17, 0.42], np.float32)
    rows, columns = np.indices((side, side), dtype=np.float32) / side - 0.5
    rim = 1 - 0.5 * (rows**2 + columns**2)
    return np.asarray(np.clip(faded * tint * rim[..., None] + 8, 0, 255), dtype=np.float32)


def _sky(rng: Generator, side: int, horizon: float) -> Canvas:
    rows = np.arange(side, dtype=np.float32)[:, None, None] / side
    high = np.asarray(_mixed(_BLUE, _WHITE, rng.uniform(0.2, 0.6)), np.float32)
    low = np.asarray(_mixed(_WHITE, _OCHRE, rng.uniform(0, 0.7)), np.float32)
    sky = high + (low - high) * np.clip(rows / horizon, 0, 1)
    canvas = np.broadcast_to(sky, (side, side, 3)).astype(np.float32)
    clouds = noise(rng, (side, side), (side * 0.09, side * 0.22)) + 0.5 * fractal(rng, (side, side), side * 0.1)
    _blend(canvas, np.asarray(_WHITE, np.float32), 0.7 * np.clip(clouds - 0.2, 0, 1))
    return canvas


def _house(rng: Generator, canvas: Canvas, x: float, y: float) -> None:
    size = float(rng.uniform(0.06, 0.1))
    wall, roof = _mixed(_WHITE, _OCHRE, rng.uniform(0, 0.6)), _mixed(_RED, _UMBER, rng.uniform(0.2, 0.7))
    _polygon(canvas, [(x, y), (x, y - size), (x + 1.6 * size, y - size), (x + 1.6 * size, y)], wall)
    top = y - 1.7 * size
    _polygon(canvas, [(x - 0.2 * size, y - size), (x + 0.8 * size, top), (x + 1.8 * size, y - size)], roof)
    for offset in (0.3, 1.0):
        left, low = x + offset * size, y - 0.35 * size
        corners = [(left, low), (left, low - 0.3 * size), (left + 0.25 * size, low - 0.3 * size)]
        _polygon(canvas, [*corners, (left + 0.25 * size, low)], _UMBER)


def _tree(rng: Generator, canvas: Canvas, x: float, y: float) -> None:
    size = float(rng.uniform(0.05, 0.1)) * (0.5 + y)
    leaf = _mixed(_mixed(_GREEN, _BLACK, 0.4), _OCHRE, rng.uniform(0, 0.5))
    trunk = [(x - 0.08 * size, y), (x - 0.05 * size, y - 1.6 * size), (x + 0.08 * size, y - 1.6 * size)]
    _polygon(canvas, [*trunk, (x + 0.1 * size, y)], _UMBER)
    for _ in range(rng.integers(9, 15)):
        at = (x + size * float(rng.normal(0, 0.42)), y - size * float(rng.normal(1.9, 0.4)))
        radius = size * float(rng.uniform(0.22, 0.45))
        _ball(canvas, at, (radius, 0.8 * radius), _mixed(leaf, _UMBER, rng.uniform(0, 0.35)))


def _ship(rng: Generator, canvas: Canvas, x: float, y: float, size: float) -> None:
    hull = [(x - 0.9 * size, y - 0.3 * size), (x + 1.0 * size, y - 0.35 * size)]
    _polygon(canvas, [*hull, (x + 0.7 * size, y), (x - 0.7 * size, y)], _UMBER)
    for mast in (-0.45, 0.35):
        foot, high = x + mast * size, y - size * float(rng.uniform(1.8, 2.4))
        _polygon(canvas, [(foot, y - 0.3 * size), (foot, high), (foot + 0.06 * size, high)], _UMBER)
        sail = _mixed(_SIENNA, _WHITE, rng.uniform(0.1, 0.6))
        for low, tall in ((y - 0.45 * size, 0.55), (y - 1.1 * size, 0.4)):
            top = [(foot - 0.28 * size, low - tall * size), (foot + 0.34 * size, low - tall * size)]
            _polygon(canvas, [*top, (foot + 0.48 * size, low), (foot - 0.38 * size, low)], sail)


def _ball(canvas: Canvas, at: tuple[float, float], radii: tuple[float, float], colour: Colour) -> None:
    """An ellipse lit from the upper left."""
    side = canvas.shape[0]
    (x, y), (wide, high) = (at[0] * side, at[1] * side), (radii[0] * side, radii[1] * side)
    top, left = max(0, int(y - high) - 1), max(0, int(x - wide) - 1)
    part = canvas[top : max(top, int(y + high) + 2), left : max(left, int(x + wide) + 2)]
    if part.size:
        rows, columns = np.indices(part.shape[:2], dtype=np.float32)
        across, down = (columns + left - x) / wide, (rows + top - y) / high
        radius = np.hypot(across, down)
        light = 0.98 - 0.28 * across - 0.3 * down - 0.3 * radius**2
        alpha = np.clip((1 - radius) * min(wide, high) * 0.8 + 0.5, 0, 1)
        _blend(part, np.asarray(colour, np.float32) * light[..., None], alpha)


def _polygon(canvas: Canvas, corners: list[tuple[float, float]], colour: Colour) -> None:
    points = np.rint(np.asarray(corners) * canvas.shape[0] * 16).astype(np.int32)
    inside = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(inside, [points], 255, lineType=cv2.LINE_AA, shift=4)
    _blend(canvas, np.asarray(colour, np.float32), inside / np.float32(255))


def _fill_below(canvas: Canvas, height: NDArray[np.float32], colour: Colour) -> None:
    """Fill below a contour, darker towards the bottom."""
    side = canvas.shape[0]
    rows = np.arange(side, dtype=np.float32)[:, None]
    alpha = np.clip(rows - height[None] * side, 0, 1)
    shade = 1.08 - 0.5 * np.clip(rows / side - height[None], 0, 1)
    _blend(canvas, np.asarray(colour, np.float32) * shade[..., None], alpha)


def _blend(canvas: Canvas, colour: NDArray[np.floating[Any]], alpha: NDArray[np.floating[Any]]) -> None:
    canvas += (colour - canvas) * alpha[..., None]


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * float(share) for a, b in zip(first, second, strict=True))
    return red, green, blue
