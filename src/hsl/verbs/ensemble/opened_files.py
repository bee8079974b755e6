"""Which files this process opens: the isolation audit asks whether any was one of the test part."""

import os
import sys
from types import TracebackType
from typing import Self


class OpenedFiles:
    """Collects the paths that are opened while it is entered; an audit hook of Python, which no library avoids.

    Worker processes that were started before are not seen; those forked meanwhile inherit the hook, but not the list.
    """

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._watching = False

    def __enter__(self) -> Self:
        self._watching = True
        sys.addaudithook(self._hook)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._watching = False  # a hook cannot be taken away

    def paths(self) -> set[str]:
        """Those opened until now, links followed."""
        return {os.path.realpath(path) for path in tuple(self._paths)}

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and self._watching and isinstance(arguments[0], str | bytes | os.PathLike):
            self._paths.add(os.fsdecode(arguments[0]))
