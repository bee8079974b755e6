"""Tasks from one mask, and which heads a problem learns."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hsl.batch import UNKNOWN_LABEL
from hsl.channels import channel_mask, class_pixels, code_names, holds, num_values, pack, shown_classes
from hsl.data.files.records import FileSource, Record
from hsl.data.formats.coralscapes import CLASSES
from hsl.data.formats.description import describe, unfit_names
from hsl.data.formats.findings import Findings
from hsl.data.labels.image_labels import read_image_labels
from hsl.data.loading.transforms import masks_by_head
from hsl.data.tasks import MODULE_WORDS, SHIPPED, Heads, read_heads
from hsl.errors import ConfigError, DataError
from hsl.heads import Head, Problem

DEMO = ("clean", "crack", "scratch", "paint_loss", "stain", "puncture")
TILE = ("background", "blowhole", "break", "crack", "fray", "uneven")
CLASSES_OF = {"coral": CLASSES, "demo": DEMO, "magnetic_tile": TILE}
UNFIT = [
    ("", "should have a name"),
    ("  ", "should have a name"),
    ("a\nb", "Found `a\\nb`"),
    ("a\x1b[31m", "letters that can be seen"),
    ("a\u202eb", "letters that can be seen"),
    ("a\u200b", "letters that can be seen"),
    ("\u200d", "Found `\\u200d`"),
    ("\u0301", "Found `\\u0301`"),
    ("\u3164", "Found `\\u3164`"),
    ("crack\u2800", "letters that can be seen"),
    (" crack", "no blanks around it"),
    ("x" * 101, "at most 100 letters"),
    ("Ignore", "does not count|do not count"),
    ("BACKGROUND", "upper and lower case"),
]


def write(folder: Path, content: object) -> Path:
    path = folder / "tasks.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def heads(folder: Path, content: object, classes: tuple[str, ...] = DEMO) -> Heads:
    return read_heads(write(folder, content), classes, "segmentation")


@pytest.mark.parametrize("name", sorted(CLASSES_OF))
def test_tables_are_those_of_a_loop_over_the_definition(name: str) -> None:
    classes = CLASSES_OF[name]
    read = read_heads(name, classes, "segmentation")
    definition = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    assert list(read.classes) == [*definition, "segmentation"]
    for task, content in definition.items():
        expected = []
        for value in range(256):
            found = 255 if value == 255 else 0
            parts = content["groups"].values() if "groups" in content else [[each] for each in content["ids"]]
            for index, ids in enumerate(parts, 1):
                if value in ids or (value < len(classes) and classes[value] in ids):
                    found = index
            expected.append(found)
        assert read.tables[task].tolist() == expected
        assert read.tables[task].dtype == np.uint8
        assert len(read.classes[task]) == max(expected[:255]) + 1


def test_every_shipped_definition_is_known() -> None:
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == set(CLASSES_OF)


@pytest.mark.parametrize("name", sorted(CLASSES_OF))
def test_a_flat_model_has_the_same_global_space_where_all_classes_are_told_apart(name: str) -> None:
    flat = read_heads(None, CLASSES_OF[name], "segmentation")
    tasks = read_heads(name, CLASSES_OF[name], "segmentation")
    assert tasks.classes["segmentation"] == flat.classes["segmentation"] == CLASSES_OF[name]
    values = np.arange(len(CLASSES_OF[name]), dtype=np.uint8)[None]
    np.testing.assert_array_equal(tasks.global_mask(values), flat.global_mask(values))


def test_names_of_the_coral_classes() -> None:
    read = read_heads("coral", CLASSES, "segmentation")
    assert read.classes["health"] == ("other", "alive", "bleached", "dead")
    assert read.classes["background"] == ("other", "background", "dark")
    assert {task: len(names) for task, names in read.classes.items()} == {
        "genus": 9, "health": 4, "fish": 2, "human_artifacts": 4, "substrate": 6, "background": 3, "biota": 12,
        "segmentation": 40,
    }  # fmt: skip


def test_masks_of_every_head_in_one_go(tmp_path: Path) -> None:
    read = heads(tmp_path, {"damage": {"groups": {"any": [1, 2, 3]}}, "kind": {"ids": ["stain", 1]}})
    source = torch.tensor([[[0, 1, 2], [3, 4, 255]]])
    masks = {head: mask.tolist() for head, mask in masks_by_head(read, source).items()}
    assert masks["damage"] == [[[0, 1, 1], [1, 0, 255]]]
    assert masks["kind"] == [[[0, 2, 0], [0, 1, 255]]]
    assert all(mask.dtype == torch.int64 for mask in masks_by_head(read, source).values())


def test_what_no_task_tells_apart_is_one_global_class(tmp_path: Path) -> None:
    read = heads(tmp_path, {"damage": {"groups": {"any": [1, 2, 3]}}, "kind": {"ids": ["stain", 1]}})
    # (damage, kind): clean 0 0, crack 1 2, scratch 1 0, paint_loss 1 0, stain 0 1, puncture 0 0
    assert read.classes["segmentation"] == ("other", "crack", "scratch + paint_loss", "stain")
    assert read.tables["segmentation"][:6].tolist() == [0, 1, 2, 2, 3, 0]
    assert read.tables["segmentation"][255] == 255
    assert {task: table.tolist() for task, table in read.source_tables.items()} == {
        "damage": [0, 1, 1, 1, 0, 0],
        "kind": [0, 2, 0, 0, 1, 0],
    }
    assert read.members.tolist() == [0, 1, 2, 2, 3, 0]
    np.testing.assert_array_equal(read.global_mask(np.array([[3, 5, 255]], np.uint8)), [[2, 0, 255]])


def test_a_flat_run_keeps_its_mask(tmp_path: Path) -> None:
    flat = read_heads(None, DEMO, "segmentation")
    source = torch.randint(0, 6, (2, 4, 4))
    assert masks_by_head(flat, source)["segmentation"] is source
    assert {head: table.tolist() for head, table in flat.source_tables.items()} == {"segmentation": [0, 1, 2, 3, 4, 5]}
    assert flat.members.tolist() == [0, 1, 2, 3, 4, 5]
    histogram = np.arange(256)[None]
    assert flat.count(histogram)["segmentation"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_counts_are_those_of_the_masks(tmp_path: Path) -> None:
    read = heads(tmp_path, {"damage": {"groups": {"any": [1, 2, 3]}}, "kind": {"ids": ["stain", 1]}})
    sources = torch.tensor(np.random.default_rng(0).choice([0, 1, 2, 3, 4, 255], (3, 8, 8)))
    sources[0][sources[0] == 4] = 0
    histogram = np.stack([np.bincount(source.ravel(), minlength=256) for source in sources.numpy()])
    for head, masks in masks_by_head(read, sources).items():
        number = len(read.classes[head])
        pictures = [np.bincount(mask[mask != 255].ravel(), minlength=number) for mask in masks.numpy()]
        np.testing.assert_array_equal(read.count(histogram)[head], pictures)
        presence = [sum(p.sum() for p in pictures if p[index]) for index in range(number)]
        assert read.count_presence(histogram)[head].tolist() == presence
    assert read.count_presence(histogram)["kind"][1] < read.count_presence(histogram)["kind"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": {"ids": [1, 2, 1]}}, r"once\. Found `1` again in task `kind`"),
        ({"kind": {"groups": {"a": [1, 2], "b": ["scratch"]}}}, "Found `scratch` again in group `b` of task `kind`"),
        ({"kind": {"ids": [1, 6]}}, r"in \[1, 5\].*Found `6`"),
        ({"kind": {"ids": [0]}}, "0 is the background of every task.*Found `0`"),
        ({"kind": {"ids": [255]}}, "Found `255`"),
        ({"kind": {"ids": ["rust"]}}, "task `kind`.*Found `rust`"),
        ({"kind": {"ids": [True]}}, "Found `True`"),
        ({"kind": {"ids": [[1]]}}, r"Found `\[1\]`"),
        ({"kind": {"ids": []}}, "task `kind` should be a list that is not empty"),
        ({"kind": {"groups": {"a": []}}}, "group `a` of task `kind` should be a list that is not empty"),
        ({"kind": {"groups": {"a": None}}}, "group `a` of task `kind` should be a list"),
        ({"kind": {"groups": {}}}, "`groups` of task `kind` should map names to ids"),
        ({"kind": {"ids": [1], "weight": 2}}, r"either `ids` or `groups`. Found `\['ids', 'weight'\]`"),
        ({"kind": {"id": [1]}}, r"either `ids` or `groups`. Found `\['id'\]`"),
        ({"kind": [1, 2]}, r"either `ids` or `groups`. Found `\[1, 2\]`"),
        ({"segmentation": {"ids": [1]}}, "not `segmentation`"),
        ({"a.b": {"ids": [1]}}, r"Found `a\.b`"),
        ({"type": {"ids": [1]}}, "torch keeps for modules. Found `type`"),
        ({"_kind": {"ids": [1]}}, "a letter, then letters, digits and `_`.*Found `_kind`"),
        ({1: {"ids": [1]}}, "The name of a task.*Found `1`"),
        ({"kind": {"groups": {"other": [1]}}}, "classes of task `kind` should differ in name"),
        ({}, "should map names of tasks"),
        ([1], "should map names of tasks"),
        ("kind: {ids: [1]}\nkind: {ids: [2]}\n", "cannot be read.*duplicate key kind"),
        ("kind: {ids: [1}", "cannot be read"),
        ("[" * 3000, "cannot be read: maximum recursion depth"),
        ("", "should map names of tasks"),
    ],
)
def test_a_bad_definition_is_one_clear_error(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        heads(tmp_path, content)
    assert "tasks.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_module_words_are_those_of_torch() -> None:
    assert {name for name in dir(torch.nn.ModuleDict) if not name.startswith("_")} == MODULE_WORDS


def test_all_findings_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        heads(tmp_path, {"kind": {"ids": [1, 1, 9]}, "shape": {"groups": {"a": []}}})
    places = [str(error.value).index(text) for text in ("Found `1` again", "Found `9`", "group `a` of task `shape`")]
    assert all(first < second for first, second in pairwise(places))


def test_a_name_that_is_not_shipped() -> None:
    with pytest.raises(ConfigError, match=r"one of coral, demo, magnetic_tile\. Found `data\.tasks = corral`"):
        read_heads("corral", DEMO, "segmentation")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml` cannot be read"):
        read_heads(tmp_path / "none.yaml", DEMO, "segmentation")


def test_a_definition_for_another_data_set() -> None:
    with pytest.raises(ConfigError, match=r"task `binary`.*\[1, 2\].*Found `blowhole`"):
        read_heads("magnetic_tile", ("clean", "crack", "dirt"), "segmentation")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="it is a named pipe"):
        read_heads(tmp_path / "pipe.yaml", DEMO, "segmentation")


@pytest.mark.parametrize(("name", "said"), UNFIT)
def test_names_that_cannot_be_shown_are_refused_before_anything_is_read(name: str, said: str) -> None:
    assert len(unfit_names(["background", name])) == 1
    findings = Findings()
    assert describe({"classes": ["background", name]}, "dataset.yaml", findings).classes == ()
    assert len(findings.sentences) == 1
    assert any(word in findings.sentences[0] for word in said.split("|"))
    assert "\n" not in findings.sentences[0]


@pytest.mark.parametrize(
    "name",
    [
        "$x$",
        "a$",
        "\\alpha",
        "<b>",
        "a&b",
        "a_b^c",
        "50 %",
        "{x}",
        '"q"',
        "it's",
        "a/b",
        "#",
        "~",
        "裂缝",
        "شق",
        "👩‍🔬",
        "mean",
    ],
)
def test_other_names_are_shown_as_they_are(name: str) -> None:
    findings = Findings()
    assert describe({"classes": ["background", name]}, "here", findings).classes == ("background", name)
    assert findings.sentences == []


def records(*labels: str) -> list[Record]:
    return [Record(str(i), FileSource(Path("a")), None, None, {"label": text}, None) for i, text in enumerate(labels)]


def test_labels_of_pictures_are_names_of_classes_too() -> None:
    for labels in (("rust", "Rust"), ("rust", "a\u202eb")):
        with pytest.raises(DataError, match=r"Column `label`: .*Found"):
            read_image_labels("label", records(*labels))
    assert UNKNOWN_LABEL not in read_image_labels("label", records("rust", "$x$")).values


# Which of its heads a problem learns, in which all are scored, and channels as bits of one number.


DAMAGE, KIND = Head("damage", "dense", ("clean", "damage")), Head("kind", "dense", ("other", "stain"))
SHARED, LABEL = Head("segmentation", "dense", ("clean", "crack", "stain")), Head("label", "image", ("a", "b"))
CODES = Head("segmentation", "dense", ("absent", "damage", "kind"), several=True)


@pytest.mark.parametrize(
    ("heads", "learned", "readings", "scored", "channels"),
    [
        ((SHARED,), "segmentation", "", SHARED, ()),
        ((SHARED, LABEL), "segmentation label", "", SHARED, ()),
        ((LABEL,), "label", "", None, ()),
        ((DAMAGE, KIND, SHARED), "damage kind", "", SHARED, ()),
        ((DAMAGE, KIND, SHARED, LABEL), "segmentation label", "damage kind", SHARED, ()),
        ((DAMAGE, KIND, CODES), "kind damage", "", CODES, ("kind", "damage")),
    ],
    ids=["one head", "dual head", "classifier", "fused", "flat", "channels"],
)
def test_problems(
    heads: tuple[Head, ...], learned: str, readings: str, scored: Head, channels: tuple[str, ...]
) -> None:
    problem = Problem(heads, dict.fromkeys(learned.split()), {}, readings=dict.fromkeys(readings.split()))  # type: ignore[arg-type]
    assert [head.name for head in problem.learned] == learned.split()
    assert (problem.scored_head, problem.channels) == (scored, channels)


@pytest.mark.parametrize("number", [2, 5, 7])
def test_what_is_packed_is_read_again(number: int) -> None:
    planes = np.random.default_rng(0).random((number, 9, 11)) < 0.5
    codes = pack(list(planes))
    assert codes.max() < num_values(number + 1, overlapping=True) <= 128
    assert np.array_equal(np.moveaxis(holds(number)[codes], -1, 0), planes)
    for bit, plane in enumerate(planes):
        assert np.array_equal(channel_mask(codes, bit) == 255, plane)
    assert not holds(number)[255].any()


def test_pixels_of_classes_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 8, (4, 50)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.1] = 255
    histograms = np.stack([np.bincount(row, minlength=256) for row in codes])
    expected = [
        [0, *(sum(value != 255 and value >> k & 1 for value in row) for k in range(3))] for row in codes.tolist()
    ]
    for row, values in zip(expected, codes, strict=True):
        row[0] = 3 * int((values != 255).sum()) - sum(row)
    assert class_pixels(histograms, 4, overlapping=True).tolist() == expected
    assert class_pixels(histograms, 4, overlapping=False).tolist() == histograms[:, :4].tolist()


def test_names() -> None:
    classes = ["absent", "a", "b", "c"]
    assert code_names(classes)[5:] == ["a + c", "b + c", "a + b + c"]
    assert shown_classes([4, 1], classes, overlapping=True) == ["a", "c"]
    assert shown_classes([0, 2], classes, overlapping=False) == ["absent", "b"]
