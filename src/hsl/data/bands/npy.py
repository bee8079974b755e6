"""Pictures as NumPy stores arrays (``.npy``)."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError

NPY = b"\x93NUMPY"


def npy_shape(data: bytes, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and kind of number of an array, from the first bytes.

    Raises:
        DataError: it is damaged, or no numbers of two or three dimensions.
    """
    file = BytesIO(data)
    try:
        first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    except (ValueError, EOFError) as error:
        raise DataError(f"`{name}` cannot be read as NPY: {error}. Restore the file or remove it.") from error
    if kind.kind not in "uif" or len(shape) not in (2, 3) or not all(shape):
        raise DataError(f"`{name}` should be numbers (H, W, C) or (C, H, W). Found {kind} of shape {shape}.")
    return shape, kind


def read_npy(data: bytes, name: str, channels: int | None = None) -> NDArray[Any]:
    """The numbers ``(H, W)`` or ``(H, W, C)``; channels that come first are moved where there are so many of them.

    Raises:
        DataError: it is damaged, cut off, or no such array.
    """
    shape, _ = npy_shape(data, name)
    try:
        array: NDArray[Any] = np.load(BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"`{name}` cannot be read as NPY: {error}. Restore the file or remove it.") from error
    first = len(shape) == 3 and shape[0] == channels and shape[2] != channels
    return np.moveaxis(array, 0, -1) if first else array
