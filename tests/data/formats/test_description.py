"""The tables and `dataset.yaml` of a data set."""

import os
from pathlib import Path

import pytest

from hsl.data.formats.description import Description, describe, read_description
from hsl.data.formats.findings import Findings
from hsl.data.formats.tables import known_id, read_table, table_rows

IDS = {"a", "b", "Größe 1", "007"}


def read(tmp_path, text):
    path = tmp_path / "dataset.yaml"
    path.write_text(text, encoding="utf-8")
    findings = Findings()
    return read_description(path, findings), findings.sentences


def test_classes_alone_are_enough(tmp_path):
    assert read(tmp_path, "classes: [clean, Riß]\nlicense: CC0\n") == (Description(("clean", "Riß")), [])


def test_every_key(tmp_path):
    text = """
    classes: [clean, crack]
    palette: {clean: [0, 0, 0], crack: [255, 1, 2], ignore: [9, 9, 9]}
    ignore_index: 7
    value_range: [100, 4095.5]
    """
    expected = Description(("clean", "crack"), {(0, 0, 0): 0, (255, 1, 2): 1, (9, 9, 9): 255}, (100.0, 4095.5), 7)
    assert read(tmp_path, text) == (expected, [])


def test_a_missing_file_says_how_to_write_one(tmp_path):
    findings = Findings()
    assert read_description(tmp_path / "dataset.yaml", findings).classes == ()
    assert len(findings.sentences) == 1
    assert "dataset.yaml` does not exist" in findings.sentences[0]
    assert "`classes: [background, crack]`" in findings.sentences[0]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "should name the classes"),
        ("- clean\n- crack\n", "should name the classes"),
        ("names: [clean, crack]", "`classes: [background, crack]`"),
        ("classes: [a, b]\nnotes: 2020-13-45", "cannot be read as YAML"),
        ("classes: [clean, crack", "cannot be read as YAML"),
        ("classes: {0: clean, 1: crack}", "should be a list of 2 to 255 different names"),
        ("classes: [clean]", "should be a list of 2 to 255"),
        ("classes: [clean, clean]", "different names"),
        ("classes: [clean, no]", "quoted where YAML"),
        ("classes: [0, 1]", "quoted where YAML"),
        ("classes: [a, b]\nignore_index: none", "`ignore_index`"),
        ("classes: [a, b]\nignore_index: true", "`ignore_index`"),
        ("classes: [a, b]\nvalue_range: [1]", "`value_range`"),
        ("classes: [a, b]\nvalue_range: [5, 5]", "black < white"),
        ("classes: [a, b]\nvalue_range: [0, .inf]", "black < white. Found `[0, inf]`"),
        (f"classes: {'[' * 3000}{']' * 3000}", "Found too many levels"),
        ("classes: [a, b]\nvalue_range: [a, b]", "`value_range`"),
        ("classes: [a, b]\npalette: [[0, 0, 0]]", "`palette`"),
        ("classes: [a, b]\npalette: {c: [0, 0, 0]}", "names `c`, which is no class"),
        ("classes: [a, b]\npalette: {a: [0, 0]}", "The colour of `a`"),
        ("classes: [a, b]\npalette: {a: [0, 0, 256]}", "The colour of `a`"),
        ("classes: [a, b]\npalette: {a: red}", "The colour of `a`"),
        ("classes: [a, b]\npalette: {a: [1, 2, 3], b: [1, 2, 3]}", "has the colour [1, 2, 3] twice"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, text, part):
    _, sentences = read(tmp_path, text)
    assert len(sentences) == 1
    assert part in sentences[0]
    assert str(tmp_path / "dataset.yaml") in sentences[0]
    assert "\n" not in sentences[0]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("pallete: {a: [0, 0, 0]}", "Found `pallete`. Did you mean `palette`?"),
        ("Palette: {a: [0, 0, 0]}", "Did you mean `palette`?"),
        ("ignore-index: 3", "Did you mean `ignore_index`?"),
        ("ignoreindex: 3", "Did you mean `ignore_index`?"),
        ("Ignore Index: 3", "Did you mean `ignore_index`?"),
        ("valuerange: [0, 1]", "Did you mean `value_range`?"),
        ("value_ragne: [0, 1]", "Did you mean `value_range`?"),
        ("clases: [c, d]", "Did you mean `classes`?"),
        ("licens: MIT", "Did you mean `license`?"),
        ("sensor: A7", "Found `sensor`. Put what is for people below `notes`."),
        ("7: x", "Found `7`."),
        ("classes: [c, d]", "line 2 has the key `classes` again"),
        ("notes: {x: 1, y: 2, x: 3}", "line 2 has the key `x` again"),
    ],
)
def test_an_unknown_key_is_no_setting_that_is_passed_over(tmp_path, key, said):
    _, sentences = read(tmp_path, f"classes: [a, b]\n{key}\n")
    assert len(sentences) == 1
    assert said in sentences[0]


@pytest.mark.parametrize("key", ["clases", "Classes", "class", "CLASSES"])
def test_the_classes_under_nearly_their_name(tmp_path, key):
    _, sentences = read(tmp_path, f"{key}: [a, b]\n")
    assert sentences[0].startswith(f"`{tmp_path}/dataset.yaml` should name the classes. Found `{key}`. Write one")


def test_keys_for_people(tmp_path):
    text = "classes: [a, b]\nname: x\nnotes: {camera: A7, more: [1, 2]}\nmeta: 3\nnum_images: 4\nimage_sizes: {d: 1}\n"
    assert read(tmp_path, text + "base: &b {k: 1}\n".replace("base", "notes_b")) == (Description(("a", "b")), [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_editor_may_mark_the_encoding(tmp_path, encoding):
    path = tmp_path / "dataset.yaml"
    path.write_bytes("classes: [a, Riß]\n".encode(encoding))
    findings = Findings()
    assert read_description(path, findings).classes == ("a", "Riß")
    assert findings.sentences == []


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "dataset.yaml"
    path.write_bytes(b"classes: [\xff\xfe, b]")
    findings = Findings()
    read_description(path, findings)
    assert "cannot be read as YAML" in findings.sentences[0]


def test_all_faults_are_found_at_once():
    findings = Findings()
    describe({"classes": ["a", "b"], "ignore_index": "x", "value_range": 3, "palette": 4}, "here", findings)
    assert len(findings.sentences) == 3


def test_a_long_value_is_cut(tmp_path):
    levels = "".join(f"{a}: &{a} [{', '.join([f'*{b}'] * 10)}]\n" for a, b in ("ba", "cb", "dc", "ed", "fe"))
    for text in (f"classes: [{', '.join(f'c{i}' for i in range(300))}]", f"a: &a [x, x]\n{levels}classes: *f"):
        sentence = next(each for each in read(tmp_path, text)[1] if "should be a list of 2 to 255" in each)
        assert len(sentence) < 500


def test_numbers_of_masks_may_be_below_zero(tmp_path):
    text = "classes: [a, b]\nvalues: {-1: a, 1: b, 18446744073709551615: ignore}"
    assert read(tmp_path, text)[0].values == {-1: 0, 1: 1, 2**64 - 1: 255}


def test_a_link_to_nothing_is_no_missing_file(tmp_path):
    (tmp_path / "dataset.yaml").symlink_to(tmp_path / "lost.yaml")
    findings = Findings()
    read_description(tmp_path / "dataset.yaml", findings)
    (sentence,) = findings.sentences
    assert "Found a link to nothing" in sentence


def read_rows(path: Path, content: str | bytes, encoding: str = "utf-8") -> tuple[dict[str, dict[str, str]], list[str]]:
    path = path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    findings = Findings()
    return read_table(path, IDS, findings), findings.sentences


@pytest.mark.parametrize(
    "text",
    [
        "id,group,depth\na,g,0.5\nb,h,\n",
        "id;group;depth\na;g;0.5\nb;h;\n",
        "id\tgroup\tdepth\na\tg\t0.5\nb\th\t\n",
        "id|group|depth\na|g|0.5\nb|h|\n",
        "id, group, depth\r\n a , g, 0.5\r\nb,h,\r\n",
        "id,group,depth\ra,g,0.5\rb,h,\r",
        "\ufeffid,group,depth\n\n,,\na,g,0.5\n\n,,\nb,h,\n,,\n,,",
        "sep=;\nid;group;depth\na;g;0.5\nb;h;\n",
        "group,depth,id\ng,0.5,images/a.jpg\nh,,b.TIFF\n",
        "id,group,depth\nD:\\data\\images\\a.png,g,0.5\nb.png,h,\n",
        "id,group,depth,,\na,g,0.5,,\nb,h,,,\n",
        '"id";"group";"depth"\n"a";"g";"0.5"\n"b";"h";""\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_as_spreadsheets_write_it(tmp_path: Path, text: str, encoding: str) -> None:
    text = text.removeprefix("\ufeff") if encoding != "utf-8" else text
    expected = {"a": {"group": "g", "depth": "0.5"}, "b": {"group": "h"}}
    assert read_rows(tmp_path, text, encoding) == (expected, [])


def test_a_decimal_comma_parts_no_cells_of_a_table_with_semicolons(tmp_path: Path) -> None:
    assert read_rows(tmp_path, "id;depth, mm;group\na;1,5;g\nb;0,25;h\n") == (
        {"a": {"depth, mm": "1,5", "group": "g"}, "b": {"depth, mm": "0,25", "group": "h"}},
        [],
    )


def test_a_cell_may_hold_lines_and_separators(tmp_path: Path) -> None:
    table, sentences = read_rows(tmp_path, 'id,note\na,"one, two\nthree ""four"""\nx,five\n')
    assert table["a"] == {"note": 'one, two\nthree "four"'}
    assert "`x` (line 4)" in sentences[0]


def test_ids_alone(tmp_path: Path) -> None:
    assert read_rows(tmp_path, "id\na\nGro\u0308\u00dfe 1\n") == ({"a": {}, "Größe 1": {}}, [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,group,group\na,1,2\n", "should differ in name. Alike are `group`. Rename"),
        ("id,group,Group\na,1,2\n", "Alike are `group`, `Group`"),
        ("id,Group\na,1\n", "no column `group`, but nearly so. Found `Group`. Rename it to `group`"),
        ("id;gruop\na;1\n", "Found `gruop`"),
        ("id,GROUPS,label\na,1,2\n", "Found `GROUPS`"),
        ("ID,group\na,1\n", "should have a column `id`. Found the columns ['ID', 'group']. Rename `ID`."),
        ("ids\ta\na\t1\n", "Rename `ids`"),
        ("image,label\na,1\n", "should have a column `id`. Found the columns ['image', 'label']. Add or rename one."),
        (",id,label\n0,a,x\n1,b,y\n", "Column 1 has cells and none"),
        ("id,,label\na,1,x\n", "Column 2 has cells and none"),
        ("id,label\na,x,y\nb,z\n", "should have 2 cells, as line 1 has. Other numbers are in line 2 (3)."),
        (
            "\n\nid,label,group\na,x\nb,y,g\n",
            "should have 3 cells, as line 3 has. Other numbers are in line 4 (2)",
        ),
        ("sep=,\nid,depth,group\na,1,5,g\n", "as line 2 has. Other numbers are in line 3 (4)"),
        ("id,label\n,x\na,y\n", "should have an id. Without one: line 2."),
        ("id,label\na,x\na.png,y\n", "once. Repeated are `a.png` (lines 2 and 3)."),
        ("id,label\n7,x\n", "`7` (line 2; `007` may have lost its zeros in a spreadsheet"),
        ("id,label\n7.0,x\n", "`007` may have lost its zeros"),
        ("id,label\n1.23E+11,x\n", "`1.23E+11` (line 2; a spreadsheet has rounded it"),
        ("id,label\nA,x\n", "`A` (line 2; did you mean `a`?)"),
        ("id,label\nGröße_1,x\n", "did you mean `Größe 1`?"),
        ('id,label\na,x\nb,"open\n', "cannot be read from line 3 on: unexpected end of data"),
        ("id,label\na,Riß\n".encode("latin-1"), "line 2, should be text in UTF-8"),
        ("id,label\na,x\n".encode("utf-16-le"), "line 1, should be text. Found zero bytes"),
        (b"PK\x03\x04\x14\0\x06\0", "Found a workbook of a spreadsheet"),
        ("", "should have a column `id`"),
        ("\n,,\n", "should have a column `id`"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    _, sentences = read_rows(tmp_path, content)
    assert len(sentences) == 1
    assert said in sentences[0]
    assert str(tmp_path / "labels.csv") in sentences[0]
    assert "\n" not in sentences[0]


@pytest.mark.parametrize("column", ["group_id", "subgroup", "age_group", "label", "grading", "split"])
def test_columns_of_ones_own_are_free(tmp_path: Path, column: str) -> None:
    assert read_rows(tmp_path, f"id,{column}\na,1\n") == ({"a": {column: "1"}}, [])


def test_a_column_near_one_that_is_there_is_free_too(tmp_path: Path) -> None:
    assert read_rows(tmp_path, "id,group,groups\na,1,2\n")[1] == []


def test_a_name_that_stands_as_it_is_comes_first() -> None:
    assert known_id("a.png", {"a", "a.png"}) == "a.png"
    assert known_id("x/a.txt", {"a", "a.txt"}) == "a.txt"
    assert known_id("a.txt", {"a"}) == "a.txt"


def test_rows_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('x;y\n1;"2\n3"\n;\n4;5\n')
    findings = Findings()
    rows = table_rows(path, ["x", "y"], findings)
    assert [(row.line, dict(row.cells)) for row in rows] == [(2, {"x": "1", "y": "2\n3"}), (5, {"x": "4", "y": "5"})]
    assert findings.sentences == []


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    for name, said in (("pipe.csv", "cannot be read: it is a named pipe"), ("gone.csv", "Found a link to nothing")):
        findings = Findings()
        assert read_table(tmp_path / name, IDS, findings) == {}
        assert len(findings.sentences) == 1
        assert said in findings.sentences[0]
    assert read_table(tmp_path / "none.csv", IDS, findings := Findings()) == {}
    assert findings.sentences == []


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    runs = "1 2 " * 100_000
    assert read_rows(tmp_path, f"id,runs\na,{runs}\n") == ({"a": {"runs": runs.strip()}}, [])
