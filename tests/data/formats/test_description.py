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
