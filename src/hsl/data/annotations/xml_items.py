"""XML read element by element, without document types: whoever writes entities may write a bomb."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from hsl.errors import DataError
from hsl.files.io import check_regular

_DEEPEST = 50
_CHUNK = 2**18


@dataclass(slots=True)
class Element:
    """An element that has ended.

    Attributes:
        path: Names from the root to it, such as ``annotations/image/polygon``.
        line: Where it begins.
        attributes: As they are written.
        text: Of itself.
    """

    path: str
    line: int
    attributes: dict[str, str]
    text: str = field(default="")


def read_elements(path: Path) -> Iterator[tuple[bool, Element]]:
    """Each element twice: as it begins (``True``), and as it ends (``False``), then with its text.

    Raises:
        DataError: The file cannot be read, is no XML (with line and column), is nested too deeply, or has a document
            type.
    """
    parser, events, opened = expat.ParserCreate(), list[tuple[bool, Element]](), list[Element]()

    def begin(name: str, attributes: dict[str, str]) -> None:
        if len(opened) == _DEEPEST:
            raise _refused(path, parser, f"elements should be nested at most {_DEEPEST} deep")
        above = f"{opened[-1].path}/" if opened else ""
        opened.append(Element(above + name, parser.CurrentLineNumber, attributes))
        events.append((True, opened[-1]))

    def end(name: str) -> None:  # noqa: ARG001 - expat has seen to it that it is that of the last
        events.append((False, opened.pop()))

    def text(content: str) -> None:
        opened[-1].text += content

    def document_type(*_: object) -> None:
        raise _refused(path, parser, "a document type, which may hold entities, is not read")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, document_type
    try:
        check_regular(path)
        with path.open("rb") as file:
            while True:
                chunk = file.read(_CHUNK)
                parser.Parse(chunk, not chunk)
                yield from events
                events.clear()
                if not chunk:
                    return
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise DataError(
            f"`{path}` is not valid XML at line {error.lineno}, column {error.offset + 1}: {what}. Export it anew, or "
            "restore it."
        ) from None
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror or error}. Restore the file.") from None


def _refused(path: Path, parser: expat.XMLParserType, what: str) -> DataError:
    return DataError(f"`{path}`, line {parser.CurrentLineNumber}: {what}. Export it anew from the annotation tool.")
