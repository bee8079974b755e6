import pytest

from hsl.data.formats.description import Description, describe, read_description
from hsl.data.formats.findings import Findings


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
