"""A piece of memory that the pool and one of its workers share: it carries the arrays of one picture."""

import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Field(NamedTuple):
    """Where an array lies in a slot."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Slot:
    """Shared memory behind a file descriptor.

    It has no name, so nothing is left behind however the processes end, and a worker that is started anew
    finds the picture of the one before it still there.

    Args:
        descriptor: an open file to share, or ``None`` to make one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _anonymous_file() if descriptor is None else descriptor
        self._map: mmap.mmap | None = None

    def write(self, arrays: Mapping[str, Array]) -> list[Field]:
        """Copy the arrays into the slot, which grows to fit them.

        Returns:
            What ``read`` needs to find them again.
        """
        fields, end = [], 0
        for name, array in arrays.items():
            fields.append(Field(name, array.dtype.str, array.shape, end))
            end += -(-array.nbytes // 64) * 64
        for field, view in zip(fields, self._views(fields, end), strict=True):
            view[...] = arrays[field.name]
        return fields

    def read(self, fields: list[Field]) -> dict[str, Array]:
        """The arrays that ``write`` of another process put here, without a copy.

        They are read-only and hold until the next ``write``.
        """
        end = max((field.offset + _num_bytes(field) for field in fields), default=0)
        views = self._views(fields, end)
        for view in views:
            view.flags.writeable = False
        return {field.name: view for field, view in zip(fields, views, strict=True)}

    def close(self) -> None:
        """Give the memory back once no array points to it; a second call does nothing."""
        self._map = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def _views(self, fields: list[Field], end: int) -> list[Array]:
        if self._map is None or len(self._map) < end:
            # The old map is not closed but dropped: arrays that still point into it keep it alive.
            if os.fstat(self.descriptor).st_size < end:
                os.ftruncate(self.descriptor, end)
            size = os.fstat(self.descriptor).st_size
            self._map = mmap.mmap(self.descriptor, size) if size else None
        return [
            np.ndarray(field.shape, np.dtype(field.dtype), self._map if _num_bytes(field) else None, field.offset)
            for field in fields
        ]


def _num_bytes(field: Field) -> int:
    return int(np.prod(field.shape, dtype=np.int64)) * np.dtype(field.dtype).itemsize


def _anonymous_file() -> int:
    # A memory file is not bound to the size of /dev/shm, which containers keep small.
    if hasattr(os, "memfd_create"):
        return os.memfd_create("hsl-metrics")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
