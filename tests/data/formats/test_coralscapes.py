"""Published data sets, as files and as tables of a hub."""

import io
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.formats.artefact import CLASSES as DAMAGES
from hsl.data.formats.artefact import read_artefact
from hsl.data.formats.coralscapes import CLASSES, read_coralscapes
from hsl.errors import DataError

MASK = np.array([[0, 1, 13, 39]] * 3, np.uint8)
NAMES = {"train": ("site3_a", "site3_b", "site4_c"), "val": ("site6_d",), "test": ("site1_e",)}
DAMAGE_MASK = np.array([[255, 0, 1, 15]] * 3, np.uint8)


def layout(root: Path) -> Path:
    for part, names in NAMES.items():
        for name in names:
            site = name.split("_")[0]
            for folder, array in (("leftImg8bit", np.full((3, 4, 3), 50, np.uint8)), ("gtFine", MASK)):
                path = root / folder / part / site / f"{name}_{folder}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


def test_the_layout_of_cityscapes(tmp_path: Path) -> None:
    catalogue = read_coralscapes(str(layout(tmp_path / "reef")))
    assert catalogue.name == "reef"
    assert catalogue.classes == CLASSES
    assert catalogue.ignore_index == 255
    assert [(r.id, r.attributes["group"], r.split) for r in catalogue.records] == [
        ("site1_e", "site1", "test"),
        ("site3_a", "site3", "train"),
        ("site3_b", "site3", "train"),
        ("site4_c", "site4", "train"),
        ("site6_d", "site6", "val"),
    ]
    record = catalogue.records[0]
    assert (decode_image(record.image.read(), "a") == 50).all()
    np.testing.assert_array_equal(decode_mask(record.mask.read(), "a"), MASK)  # type: ignore[union-attr]


def test_unlabelled_pixels_can_be_left_out(tmp_path: Path) -> None:
    catalogue = read_coralscapes(layout(tmp_path), ignore_unlabelled=True)
    mask = decode_mask(catalogue.records[0].mask.read(), "a", None, catalogue.ignore_index)  # type: ignore[union-attr]
    assert mask[0].tolist() == [255, 1, 13, 39]


def test_classes_of_ones_own(tmp_path: Path) -> None:
    root = layout(tmp_path)
    (root / "classes.json").write_text(json.dumps({"kelp": 2, "rock": 1}))
    assert read_coralscapes(root).classes == ("unlabelled", "rock", "kelp")


@pytest.mark.parametrize("content", ['{"rock": 1, "kelp": 3}', '{"rock": 0}', "{}", "[1]", "{"])
def test_classes_that_are_no_list_of_indices(tmp_path: Path, content: str) -> None:
    root = layout(tmp_path)
    (root / "classes.json").write_text(content)
    with pytest.raises(DataError, match=r"classes\.json"):
        read_coralscapes(root)


def test_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    root = layout(tmp_path)
    (root / "gtFine/train/site3/site3_b_gtFine.png").unlink()
    (root / "gtFine/val/site6/site6_d_gtFine.png").rename(root / "gtFine/val/site6/site6_d.png")
    (root / "leftImg8bit/extra/site9").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        read_coralscapes(root)
    for text in ("Every picture should have a mask", "site3_b_leftImg8bit", "should end in `_gtFine.png`", "extra"):
        assert text in str(error.value)


def test_one_name_at_two_sites(tmp_path: Path) -> None:
    root = layout(tmp_path)
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / "test/site1" / f"site1_e_{folder}.png").rename(
            root / folder / "test/site1" / f"site6_d_{folder}.png"
        )
    with pytest.raises(DataError, match="Pictures should differ in name"):
        read_coralscapes(root)


def test_a_layout_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(DataError, match="should hold pictures in <part>/<site>/"):
        read_coralscapes(tmp_path)


def test_the_table_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    row = {"image": Image.fromarray(np.full((3, 4, 3), 50, np.uint8)), "label": Image.fromarray(MASK)}
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part, number in (("train", 2), ("validation", 1), ("test", 1)):
        table = datasets.Dataset.from_list([row] * number, features=features)
        table.to_parquet(tmp_path / "hub" / "data" / f"{part}-00000-of-00001.parquet")
    catalogue = read_coralscapes(tmp_path / "hub")
    assert catalogue.classes == CLASSES
    assert [(r.id, r.attributes, r.split) for r in catalogue.records] == [
        ("test_000000", {"group": "test"}, "test"),
        ("train_000000", {"group": "train"}, "train"),
        ("train_000001", {"group": "train"}, "train"),
        ("validation_000000", {"group": "val"}, "val"),
    ]
    np.testing.assert_array_equal(decode_mask(catalogue.records[0].mask.read(), "a"), MASK)  # type: ignore[union-attr]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere` is no file or folder here"):
        read_coralscapes(tmp_path / "nowhere")


@pytest.mark.real_data
def test_the_real_sample() -> None:
    catalogue = read_coralscapes(Path(os.environ["HSL_REAL_DATA"]) / "coralscapes_sample")
    assert catalogue.classes == CLASSES  # its own classes.json
    assert [(r.attributes["group"], r.split) for r in catalogue.records] == [
        ("site1", "test"), ("site1", "test"), ("site3", "train"), ("site3", "train"), ("site6", "val"),
    ]  # fmt: skip
    record = catalogue.records[4]
    assert decode_image(record.image.read(), "a").shape == (1024, 2048, 3)
    values = np.unique(decode_mask(record.mask.read(), "a"))  # type: ignore[union-attr]
    assert values.tolist() == [0, 3, 4, 5, 6, 9, 10, 12, 13, 14, 16, 17, 18, 19, 20, 23, 38]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def hub_folder(tmp_path, **more):
    """The columns of the published data set, revision of April 2024, two rows."""
    picture = encoded(np.full((3, 4, 3), 50, np.uint8))
    rows = [
        {
            "id": f"cl{name}",
            "image": picture,
            "annotation": encoded(DAMAGE_MASK),
            "annotation_rgb": picture,
            "material": material,
            "content": "Abstract",
            "type": "Painting",
            "damage_description": "Scratches.",
            "llava_description": "A picture.",
            "verified_description": "A picture.",
        }
        for name, material in (("y", "Canvas"), ("x", "Wood"))
    ]
    pictures = dict.fromkeys(("image", "annotation", "annotation_rgb"), datasets.Image())
    features = datasets.Features({name: pictures.get(name, datasets.Value("string")) for name in rows[0]})
    (tmp_path / "artefact" / "data").mkdir(parents=True)
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(tmp_path / "artefact" / "data" / "train-00000-of-00001.parquet")
    return tmp_path / "artefact"


def picture_folder(tmp_path, masks="annotations"):
    root = tmp_path / "artefact"
    for folder in ("images", masks):
        (root / folder).mkdir(parents=True)
    for name in ("x", "y"):
        Image.fromarray(np.full((3, 4, 3), 50, np.uint8)).save(root / "images" / f"{name}.jpg")
        Image.fromarray(DAMAGE_MASK).save(root / masks / f"{name}.png")
    (root / "metadata.csv").write_text("id,material,content\nx,Wood,Abstract\ny,Canvas,Artistic\n")
    return root


def test_the_classes_are_those_of_the_paper_in_its_order():
    assert len(DAMAGES) == 16
    assert [DAMAGES.index(name) for name in ("Clean", "Hair", "Cracks", "Staining", "Lightleak")] == [
        0,
        5,
        9,
        10,
        15,
    ]


def test_the_published_table(tmp_path):
    catalogue = read_artefact(hub_folder(tmp_path))
    assert catalogue.name == "artefact"
    assert catalogue.classes == DAMAGES
    assert [record.id for record in catalogue.records] == ["clx", "cly"]
    record = catalogue.records[0]
    assert record.attributes == {"group": "clx", "material": "Wood", "content": "Abstract"}
    assert record.split is None
    assert (decode_image(record.image.read(), "a") == 50).all()
    np.testing.assert_array_equal(
        decode_mask(record.mask.read(), "a", ignore_index=catalogue.ignore_index), DAMAGE_MASK
    )


def test_more_columns_can_be_kept(tmp_path):
    catalogue = read_artefact(hub_folder(tmp_path), attributes=["type"])
    assert catalogue.records[0].attributes == {"group": "clx", "type": "Painting"}


@pytest.mark.parametrize("masks", ["annotations", "masks"])
def test_a_folder_of_pictures(tmp_path, masks):
    root = picture_folder(tmp_path, masks)
    catalogue = read_artefact(str(root))
    assert catalogue.classes == DAMAGES
    assert [record.attributes for record in catalogue.records] == [
        {"group": "x", "material": "Wood", "content": "Abstract"},
        {"group": "y", "material": "Canvas", "content": "Artistic"},
    ]
    np.testing.assert_array_equal(decode_mask(catalogue.records[1].mask.read(), "a"), DAMAGE_MASK)


def test_a_group_in_the_metadata_is_kept(tmp_path):
    root = picture_folder(tmp_path)
    (root / "metadata.csv").write_text("id,material,content,group\nx,Wood,A,g\ny,Wood,A,g\n")
    assert {record.attributes["group"] for record in read_artefact(root).records} == {"g"}


def test_a_folder_without_metadata(tmp_path):
    root = picture_folder(tmp_path)
    (root / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"metadata\.csv` does not exist. Write one with the columns id, material"):
        read_artefact(root)


def test_metadata_that_does_not_tell_the_material(tmp_path):
    root = picture_folder(tmp_path)
    (root / "metadata.csv").write_text("id,material,content\nx,,Abstract\n")
    with pytest.raises(DataError) as error:
        read_artefact(root)
    assert "2 faults" in str(error.value)
    assert "should tell the material of every picture. Not of `x`, `y`." in str(error.value)
    assert "should tell the content of every picture. Not of `y`." in str(error.value)


def test_a_picture_without_annotation(tmp_path):
    root = picture_folder(tmp_path)
    (root / "annotations" / "x.png").unlink()
    with pytest.raises(DataError, match=r"Every picture should have a mask.*x\.jpg"):
        read_artefact(root)


def test_a_folder_of_artefacts_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nowhere` is no file or folder here"):
        read_artefact(tmp_path / "nowhere")
