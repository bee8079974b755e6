"""Facts of the ways to look at a picture that NumPy and torch share. No torch."""

SIGMA = 1 / 8  # of the window's side
WEIGHT_FLOOR = 1e-3  # of the weight in the middle, as in MONAI: no pixel rests on weights near zero
TURNS_THEN_MIRROR = {
    "identity": (0, False),
    "rot90": (1, False),
    "rot180": (2, False),
    "rot270": (3, False),
    "hflip": (0, True),
    "antitranspose": (1, True),
    "vflip": (2, True),
    "transpose": (3, True),
}
"""Every symmetry of the square is some quarter turns counter-clockwise and then perhaps a left-right mirror."""


def starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows start along a side: every ``stride`` pixels, the last one moved back to the border.

    Example:
        >>> starts(1024, 512, 341)
        [0, 341, 512]
    """
    return [*range(0, side - window, stride), side - window]
