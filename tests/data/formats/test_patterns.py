import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.data.files.decoding import Decoding
from hsl.data.formats.findings import Findings
from hsl.data.formats.folder import read_folder, read_pictures
from hsl.data.formats.patterns import list_files, read_pattern
from hsl.errors import DataError


def draw(root: Path, *names: str, value: int = 0) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(name.rpartition(".")[2].lower(), "PNG")
        Image.fromarray(np.full((4, 5), value, np.uint8)).save(path, kind)


def masks_of(catalogue) -> dict[str, list[int]]:
    decoding = Decoding.of(catalogue)
    return {record.id: np.unique(decoding.mask(record.mask)).tolist() for record in catalogue.records}


def message(root: Path, **how: object) -> str:
    with pytest.raises(DataError) as error:
        read_folder(root, **how)
    return str(error.value)


CRACK = {"classes": ["background", "crack"], "values": {0: "background", 255: "crack"}}


def test_what_a_pattern_matches() -> None:
    files = ["images/a.jpg", "images/x/y/b.JPEG", "images/x/c.png", "train/images/d.jpg", "images/e.jpg.txt"]
    for text, expected in {
        "images/{id}": ["a"],
        "images/**/{id}": ["a", "b", "c"],
        "images/**/{id}.jpg": ["a", "b"],
        "images/{folder}/{id}.*": ["x_y_b", "x_c"],
        "images/{group}/{id}.png": ["c"],
        "**/{id}.jpeg": ["a", "b", "d"],
        "{split}/images/?{id}": [],
        "{split}/*s/{id}.jpg": ["d"],
    }.items():
        findings = Findings()
        pattern = read_pattern(text, "data.reader.images", findings)
        assert pattern is not None
        assert [match.id for match in pattern.matches(files, findings)] == expected, text
        assert not findings.sentences, text
    for wrong in ("images/x.jpg", "{id", "/abs/{id}", "../{id}", "{class}/{id}", "{i d}/{id}", ""):
        findings = Findings()
        assert read_pattern(wrong, "data.reader.images", findings) is None
        assert f"Found `{wrong}`" in findings.sentences[0]


def test_pictures_below_folders_are_told_of_and_the_advice_works(tmp_path: Path) -> None:
    for scene in ("one", "two"):
        draw(tmp_path, f"images/{scene}/{scene}1.jpg", f"images/{scene}/{scene}2.JPG")
        draw(tmp_path, f"masks/{scene}/{scene}1.png", f"masks/{scene}/{scene}2.png", value=255)
    said = message(tmp_path, **CRACK)
    assert "4 pictures lie in folders below" in said
    assert 'set `data.reader.images="images/**/{id}"`' in said
    found = read_folder(tmp_path, images="images/**/{id}", masks="masks/**/{id}", **CRACK)
    assert masks_of(found) == {"one1": [1], "one2": [1], "two1": [1], "two2": [1]}
    by_folder = read_folder(tmp_path, images="images/{group}/{id}", masks="masks/**/{id}", **CRACK)
    assert [record.attributes for record in by_folder.records] == [{"group": "one"}] * 2 + [{"group": "two"}] * 2


def test_names_that_repeat_are_told_of_and_the_advice_works(tmp_path: Path) -> None:
    for scene in ("one", "two"):
        draw(tmp_path, f"images/{scene}/1.png", f"masks/{scene}/1_mask.png")
    said = message(tmp_path, images="images/**/{id}", masks="masks/**/{id}_mask", **CRACK)
    assert "`images/one/1.png and images/two/1.png`. Rename one, or write `{folder}`" in said
    found = read_folder(tmp_path, images="images/{folder}/{id}", masks="masks/{folder}/{id}_mask.png", **CRACK)
    assert [record.id for record in found.records] == ["one_1", "two_1"]
    assert found.records[0].attributes == {"folder": "one"}
    assert found.records[0].mask is not None


def test_parts_of_a_split_may_repeat_names(tmp_path: Path) -> None:
    for part in ("train2017", "Validation"):
        draw(tmp_path, f"{part}/images/1.png", f"{part}/masks/1.png")
    where = {"images": "{split}/images/{id}", "masks": "{split}/masks/{id}"}
    found = read_folder(tmp_path, **where, **CRACK)
    assert [(record.id, record.split) for record in found.records] == [("train_1", "train"), ("val_1", "val")]
    draw(tmp_path, "extra/images/2.png", "extra/masks/2.png")
    assert "`{split}` of `{split}/images/{id}` should stand for one of train, val, test. Found `extra`" in message(
        tmp_path, **where, **CRACK
    )


def test_a_file_a_class(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/b.png")
    draw(tmp_path, "masks/stain/a.png", "masks/crack/a.png", "masks/crack/b.png", value=255)
    found = read_folder(tmp_path, masks="masks/{class}/{id}")
    assert found.classes == ("background", "crack", "stain")
    assert masks_of(found) == {"a": [2], "b": [1]}  # the later class lies above
    turned = read_folder(tmp_path, masks="masks/{class}/{id}", classes=["background", "stain", "crack"])
    assert masks_of(turned) == {"a": [2], "b": [2]}
    assert "should stand for one of background, stain. Found `crack (b.png)`" in message(
        tmp_path, masks="masks/{class}/{id}", classes=["background", "stain"]
    )
    (tmp_path / "masks/crack/b.png").unlink()
    assert "Every picture should have a mask" in message(tmp_path, masks="masks/{class}/{id}")


def test_a_file_an_object(tmp_path: Path) -> None:
    draw(tmp_path, "a/images/a.png", "b/images/b.png", "b/masks/z1.png")
    draw(tmp_path, "a/masks/x1.png", "a/masks/x2.png", value=255)
    where = {"images": "{id}/images/{id}.png", "masks": "{id}/masks/*.png"}
    found = read_folder(tmp_path, **where, classes=["background", "nucleus"])
    assert masks_of(found) == {"a": [1], "b": [0]}
    assert "one mask of `{id}/masks/*.png` where there are more than two classes" in message(
        tmp_path, **where, classes=["background", "x", "y"]
    )


def test_settings_take_the_place_of_the_description(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "masks/a.png", value=255)
    (tmp_path / "dataset.yaml").write_text("classes: [background, crack]\nignore_index: 9\nvalue_range: [0, 4095]")
    found = read_folder(tmp_path, values={0: "background", 255: "crack"})
    assert (masks_of(found), found.value_range) == ({"a": [1]}, (0.0, 4095.0))
    assert "needs `palette` or `values`" in message(tmp_path, nearest=True)
    assert "no class of ['background', 'crack']" in message(tmp_path, values={0: "nothing", 255: "crack"})


def test_what_lies_in_the_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "größe mit leer"
    draw(root, "x/a ü.png", "x/a ü_mask.png", "x/rest/b.png", "x/.hidden/c.png")
    (root / "x" / "loop").symlink_to(root)
    (root / "x" / "gone.png").symlink_to(root / "nowhere")
    found = read_folder(root, images="x/{id}.png", masks="x/{id}_mask.png", masks_optional=True, **CRACK)
    assert [record.id for record in found.records] == ["a ü"]  # the mask's pattern says more of its name
    assert any("1 links that lead in a circle" in text for text in found.not_read)
    assert any("1 pictures fit neither" in text for text in found.not_read)
    (record,), _ = read_pictures(root / "x" / "rest" / "{id}.png")
    assert record.id == "b"
    for where, said in (
        ("y/{id}.png", "does not exist"),
        ("x/{id}.jpg", "No picture below .* fits `input = {id}.jpg`"),
    ):
        with pytest.raises(DataError, match=said):
            read_pictures(root / where)
    assert "does not exist" in message(root, images="y/{id}", masks="x/{id}_mask.png", **CRACK)
    assert "No picture" in message(root, images="x/{id}.png", masks="x/{id}.png", **CRACK)


def test_pictures_and_masks_in_one_folder(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/b.png", "images/a_mask.png", "images/b_mask.png", "top.jpg", "top_x.png")
    found = read_folder(tmp_path, masks="images/{id}_mask", **CRACK)
    assert [record.id for record in found.records] == ["a", "b"]
    found = read_folder(tmp_path, images="images/{id}_mask", masks="images/{id}", **CRACK)
    assert [record.id for record in found.records] == ["a", "b"]
    assert [record.id for record in read_folder(tmp_path, images="{id}.jpg", masks="{id}_x", **CRACK).records] == [
        "top"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folders_are_findings(tmp_path: Path) -> None:
    draw(tmp_path, "images/x/a.png", "masks/x/a.png")
    (tmp_path / "masks" / "x").chmod(0)
    assert "should be readable. Not so are `masks/x`" in message(
        tmp_path, images="images/**/{id}", masks="masks/**/{id}", **CRACK
    )


def test_cases_that_a_disk_may_confuse(tmp_path: Path) -> None:
    draw(tmp_path, "i/x/a.png", "i/y/A.png", "m/x/a.png", "m/y/A.png")
    assert "differ in more than upper and lower case" in message(
        tmp_path, images="i/**/{id}", masks="m/**/{id}", **CRACK
    )


def test_listing_takes_one_pass(tmp_path: Path) -> None:
    for folder in range(3):
        (tmp_path / f"f{folder}").mkdir()
        for number in range(50):
            (tmp_path / f"f{folder}" / f"{number}.png").touch()
    assert len(list_files(tmp_path).files) == 150
