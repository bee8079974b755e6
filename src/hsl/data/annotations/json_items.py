"""JSON of any size, read item by item: what is held is one item, not the file."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from hsl.errors import DataError
from hsl.files.io import check_regular

LARGEST_ITEM = 2**26
"""Letters of one item: a picture that LabelMe keeps in its file has a few million."""

_CHUNK = 2**20
_LONGEST_NUMBER = 32
_BLANKS = " \t\n\r"
_WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DECODER = json.JSONDecoder()


def encoding_of(start: bytes) -> str:
    """The encoding that the first bytes of a text tell: UTF-16 with its mark, else UTF-8, with or without."""
    return _WIDE.get(start[:2], "utf-8-sig")


def read_items(path: Path) -> Iterator[tuple[str | None, Any]]:
    """The items of a JSON file, in their order.

    Args:
        path: UTF-8 or UTF-16, with or without its mark.

    Yields:
        Of an object each key with its value, and where that is a list, the key with each member of it. Of a list
            ``None`` with each member.

    Raises:
        DataError: The file cannot be read, is no text in UTF-8 or UTF-16, or no JSON: with line and column.
    """
    try:
        check_regular(path)
        with path.open("rb") as binary:
            start = binary.read(4)
        with path.open(encoding=encoding_of(start), newline="") as file:
            yield from _Items(path, file).all()
    except UnicodeDecodeError as error:
        raise DataError(
            f"`{path}` should be text in UTF-8. Found other bytes ({error.reason}), perhaps Latin-1. Convert it: "
            "`iconv -f LATIN1 -t UTF-8`."
        ) from None
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror or error}. Restore the file.") from None


class _Items:
    """A place in a file, with the text around it."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.text, self.place = "", 0
        self.line, self.column = 1, 1  # of the first letter of the text
        self.ended = False

    def all(self) -> Iterator[tuple[str | None, Any]]:
        opening = self._letter()
        if opening == "[":
            for member in self._members():
                yield None, member
        elif opening == "{":
            yield from self._pairs()
        else:
            raise self._wrong("a JSON object or list should begin here", self.place)
        if self._letter():
            raise self._wrong("the file should end here", self.place)

    def _pairs(self) -> Iterator[tuple[str, Any]]:
        self.place += 1
        if self._letter() == "}":
            self.place += 1
            return
        while True:
            if self._letter() != '"':
                raise self._wrong("a key in quotes should stand here", self.place)
            key: str = self._value()
            self._take(":")
            if self._letter() == "[":
                for member in self._members():
                    yield key, member
            else:
                yield key, self._value()
            if self._take(",}") == "}":
                return

    def _members(self) -> Iterator[Any]:
        self.place += 1
        if self._letter() == "]":
            self.place += 1
            return
        while True:
            yield self._value()
            if self._take(",]") == "]":
                return

    def _value(self) -> Any:
        self._letter()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                if self._cut_at_end(error):
                    continue
                raise self._wrong(error.msg, error.pos) from None
            except RecursionError:
                raise self._wrong("lists and objects are nested too deeply from here on", self.place) from None
            except ValueError:  # a whole number of thousands of digits
                raise self._wrong("a number with far too many digits follows", self.place) from None
            number = isinstance(value, int | float)  # of which what was read so far may be the beginning
            if number and len(self.text) - end < _LONGEST_NUMBER and self._more():
                continue
            self.place = end
            return value

    def _cut_at_end(self, error: json.JSONDecodeError) -> bool:
        if len(self.text) - self.place > LARGEST_ITEM:
            raise self._wrong(f"{error.msg}, or one item has more than {LARGEST_ITEM} letters", error.pos)
        return self._more()

    def _take(self, which: str) -> str:
        letter = self._letter()
        if not letter or letter not in which:
            raise self._wrong(f"`{'` or `'.join(which)}` should stand here", self.place)
        self.place += 1
        return letter

    def _letter(self) -> str:
        """The next letter that is no blank, which is not taken; none at the end of the file."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in _BLANKS:
                self.place += 1
            if self.place < len(self.text):
                return self.text[self.place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, as much again as is left, and forget what has been taken."""
        if self.ended:
            return False
        added = self.file.read(max(_CHUNK, len(self.text) - self.place))
        if added:
            self.line, self.column = self._position(self.place)
            self.text, self.place = self.text[self.place :] + added, 0
        self.ended = not added
        return bool(added)

    def _position(self, place: int) -> tuple[int, int]:
        lines = self.text.count("\n", 0, place)
        last = self.text.rfind("\n", 0, place)
        return self.line + lines, place - last if lines else self.column + place

    def _wrong(self, what: str, place: int) -> DataError:
        line, column = self._position(place)
        cut = " The file is cut off." if self.ended and place >= len(self.text.rstrip()) else ""
        return DataError(
            f"`{self.path}` is not valid JSON at line {line}, column {column}: {what}.{cut} Export it anew, or restore "
            "it."
        )
