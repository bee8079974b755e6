"""JSON and XML, read item by item."""

import json
import re
import tracemalloc
from pathlib import Path

import pytest

from hsl.data.annotations import json_items
from hsl.data.annotations.json_items import read_items
from hsl.data.annotations.xml_items import read_elements
from hsl.errors import DataError

CONTENT = {
    "a": 1, "b": [1, -2.5e3, "x\\\"é\n", None, [1, [2]], {"k": []}], "c": {"d": [1]}, "e": [], "f": "", "g": 12345,
}  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_items_are_the_same_in_pieces_of_any_size(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    expected = [
        (key, each) for key, value in CONTENT.items() for each in (value if isinstance(value, list) else [value])
    ]
    for text in (json.dumps(CONTENT), json.dumps(CONTENT, indent=1, ensure_ascii=False)):
        for encoding in ("utf8", "utf-8-sig", "utf-16"):
            path.write_text(text, encoding=encoding)
            assert list(read_items(path)) == expected
    path.write_text("[1, 2.5, {}]", encoding="utf8")
    assert list(read_items(path)) == [(None, 1), (None, 2.5), (None, {})]


def message(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_items(path) if path.suffix == ".json" else read_elements(path))
    return str(error.value)


def test_faults_name_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, what in [
        (b'{"a": [\n {"b": 1},\n {"b": 2', "line 3, column .*cut off"),
        (b'{"a": [1,\n 2 3]}', "line 2, column 4: `,` or `]`"),
        (b'{"a" 1}', "line 1, column 6: `:`"),
        (b"", "line 1, column 1: a JSON object or list"),
        (b"3", "a JSON object or list"),
        (b"[1] x", "line 1, column 5: the file should end"),
        (b"{1: 2}", "a key in quotes"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"[" + b"9" * 9000 + b"]", "too many digits"),
        ('["Riß"]'.encode("latin1"), "Latin-1.*iconv"),
    ]:
        assert re.search(what, message(path, content)), (content[:40], message(path, content))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_items(tmp_path))


def test_what_is_held_is_an_item_and_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    item = json.dumps({"points": list(range(1000))})
    path.write_text(f'{{"annotations": [{", ".join([item] * 3000)}]}}', encoding="utf8")
    assert path.stat().st_size > 12e6
    tracemalloc.start()
    number = sum(1 for _ in read_items(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert number == 3000
    assert most < 9e6


def test_xml_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "' + b"b" * 99 + b'"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>'
    for content, what in [
        (bomb, "line 1: a document type"),
        (b"<a>" * 99, "nested at most"),
        (b"<a>\n<b></a>", "line 2, column .*mismatched tag"),
        (b"<a><b>", "no element found|unclosed"),
        (b"", "no element found"),
    ]:
        assert re.search(what, message(path, content)), message(path, content)
    path.write_text('<?xml version="1.0" encoding="ISO-8859-1"?><a b="Riß">c<d/>e</a>', encoding="latin1")
    ended = [(element.path, element.attributes, element.text) for begins, element in read_elements(path) if not begins]
    assert ended == [("a/d", {}, ""), ("a", {"b": "Riß"}, "ce")]
