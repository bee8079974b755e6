"""Masks that programs stored as arrays: NumPy's `.npy` and `.npz`, and `.mat` of MATLAB up to version 7."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.data.files.records import FileSource
from hsl.errors import DataError

SUFFIXES = (".npy", ".npz", ".mat")
_NPY, _ZIP, _MAT, _MAT_HDF = b"\x93NUMPY", b"PK\x03\x04", b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
_USUAL = ("mask", "label", "labels", "seg", "segmentation", "gt", "groundtruth", "arr_0")
_CLASSES_OF_MAT = ("struct", "cell", "object", "char", "function", "opaque", "sparse")


@dataclass(frozen=True, slots=True)
class ArraySource:
    """One array of a file of several, handed on as NPY.

    Attributes:
        path: The file.
        key: What the array is called in it; fields of a struct follow after dots, as in ``truth.mask``.
    """

    path: Path
    key: str

    @property
    def name(self) -> str:
        return f"{self.path}#{self.key}"

    def read(self) -> bytes:
        buffer = BytesIO()
        np.save(buffer, array_of(FileSource(self.path).read(), str(self.path), float("inf"), self.key))
        return buffer.getvalue()

    def stamp(self) -> str:
        return f"{FileSource(self.path).stamp()}-{self.key}"


def is_array_file(data: bytes) -> bool:
    """Whether a file is one that `array_of` reads."""
    return data.startswith((_NPY, _ZIP, _MAT, _MAT_HDF))


def array_of(data: bytes, name: str, max_megapixels: float, key: str = "") -> NDArray[Any]:
    """The one array of a file, or the one that ``key`` names, or the only one of a usual name.

    Args:
        data: The whole file.
        name: What an error calls it.
        max_megapixels: A larger array is refused before it is read.
        key: As in `ArraySource`.

    Returns:
        ``(H, W)``, or colours ``uint8 (H, W, 3)``; axes of length 1 are left out.

    Raises:
        DataError: The file is damaged, holds no such array, several, one of another shape, or one that is too large.
    """
    if data.startswith(_MAT_HDF):
        raise DataError(f"`{name}` is of MATLAB 7.3. Store it by `save(..., '-v7')`, or the mask as PNG.")
    with _explained(name):
        if data.startswith(_NPY):
            shape, _ = _header(BytesIO(data))
            _check(shape, name, max_megapixels)
            return _image(np.load(BytesIO(data), allow_pickle=False), name)
        if data.startswith(_ZIP):
            return _image(_of_npz(data, name, max_megapixels, key), name)
        return _image(_of_mat(data, name, max_megapixels, key), name)


def _of_npz(data: bytes, name: str, max_megapixels: float, key: str) -> NDArray[Any]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        shapes = {}
        for entry in archive.namelist():
            with archive.open(entry) as file:
                shapes[entry.removesuffix(".npy")], _ = _header(file)
        chosen = _chosen(shapes, name, key)
        _check(shapes[chosen], name, max_megapixels)
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        array: NDArray[Any] = arrays[chosen]
    return array


def _of_mat(data: bytes, name: str, max_megapixels: float, key: str) -> NDArray[Any]:
    from scipy.io import loadmat, whosmat  # of all masks few are such

    variable, *fields = key.split(".")
    shapes = {each: shape for each, shape, kind in whosmat(BytesIO(data)) if fields or kind not in _CLASSES_OF_MAT}
    chosen = _chosen(shapes, name, variable)
    if not fields:
        _check(shapes[chosen], name, max_megapixels)
    content: Any = loadmat(BytesIO(data), variable_names=[chosen], simplify_cells=bool(fields))[chosen]
    for field in fields:
        if not isinstance(content, Mapping) or field not in content:
            there = ", ".join(content) if isinstance(content, Mapping) else "no fields"
            raise DataError(f"`{name}` should hold `{key}`. Found {there} in place of `{field}`. Correct the pattern.")
        content = content[field]
    array = np.asarray(content)
    _check(array.shape, name, max_megapixels)
    return array


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _chosen(shapes: Mapping[str, tuple[int, ...]], name: str, key: str) -> str:
    if key and key not in shapes:
        raise DataError(f"`{name}` should hold an array `{key}`. Found {', '.join(shapes) or 'none'}. Name another.")
    flat = [each for each, shape in shapes.items() if len([side for side in shape if side > 1]) in (2, 3)]
    usual = [each for each in flat if each.casefold() in _USUAL]
    found = [key] if key else usual if len(usual) == 1 else flat
    if len(found) != 1:
        listed = ", ".join(f"{each} {shapes[each]}" for each in found) or "none"
        raise DataError(
            f"`{name}` should hold one mask of height and width. Found {listed}. Name one in the pattern of the masks: "
            f"`masks/{{id}}{Path(name).suffix}#{found[0] if found else 'mask'}`."
        )
    return found[0]


def _check(shape: tuple[int, ...], name: str, max_megapixels: float) -> None:
    pixels = float(np.prod([float(side) for side in shape])) / 1e6
    if pixels > max_megapixels:
        raise DataError(
            f"`{name}` should have at most {max_megapixels:g} megapixels. Found an array {shape}. Cut it into parts, "
            "or raise `data.max_megapixels`."
        )


def _image(array: NDArray[Any], name: str) -> NDArray[Any]:
    flat = array.reshape([side for side in array.shape if side != 1]) if array.ndim != 2 else array
    colours = flat.ndim == 3 and flat.shape[2] == 3 and flat.dtype == np.uint8
    if flat.ndim != 2 and not colours:
        raise DataError(
            f"`{name}` should hold a number for each pixel, or colours of 8 bits. Found {array.dtype} {array.shape}. "
            "Store class indices, as `scores.argmax(-1)` makes them of one channel a class."
        )
    return flat


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, TypeError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"`{name}` cannot be read as an array: {reason}. Store it anew, or as PNG.") from error
