"""HEIC and HEIF, the pictures of telephones, where the package pillow-heif is installed."""

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import DataError

SUFFIXES = (".heic", ".heif", ".hif")
MODULE = "pillow_heif"
INSTALL = "`pip install pillow-heif`"
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BROKEN = (OSError, SyntaxError, RuntimeError, ValueError)


def is_heif(data: bytes) -> bool:
    """Whether a file says that it is HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def heif_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width, as the picture is shown.

    Raises:
        DataError: The package is not installed, or the file is damaged.
    """
    width, height = _opened(data, name).size
    return height, width


def heif_pixels(data: bytes, name: str) -> NDArray[np.uint8]:
    """RGB ``uint8 (H, W, 3)``, upright.

    Raises:
        DataError: The package is not installed, or the file is damaged.
    """
    file = _opened(data, name)
    try:
        return np.asarray(file.to_pillow().convert("RGB"))
    except _BROKEN as error:
        raise _damaged(name, error) from error


def is_readable() -> bool:
    """Whether the package is installed."""
    return find_spec(MODULE) is not None


def _opened(data: bytes, name: str) -> Any:
    if not is_readable():
        raise DataError(f"`{name}` is a HEIC picture. Convert it to PNG, or install what reads it: {INSTALL}.")
    try:
        return importlib.import_module(MODULE).open_heif(data)
    except _BROKEN as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"`{name}` is cut off or damaged: {error}. Restore the file or remove it.")
