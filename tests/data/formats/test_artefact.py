import io

import datasets
import numpy as np
import pytest
from PIL import Image

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.formats.artefact import CLASSES, read_artefact
from hsl.errors import DataError

MASK = np.array([[255, 0, 1, 15]] * 3, np.uint8)


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
            "annotation": encoded(MASK),
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
        Image.fromarray(MASK).save(root / masks / f"{name}.png")
    (root / "metadata.csv").write_text("id,material,content\nx,Wood,Abstract\ny,Canvas,Artistic\n")
    return root


def test_the_classes_are_those_of_the_paper_in_its_order():
    assert len(CLASSES) == 16
    assert [CLASSES.index(name) for name in ("Clean", "Hair", "Cracks", "Staining", "Lightleak")] == [
        0,
        5,
        9,
        10,
        15,
    ]


def test_the_published_table(tmp_path):
    catalogue = read_artefact(hub_folder(tmp_path))
    assert catalogue.name == "artefact"
    assert catalogue.classes == CLASSES
    assert [record.id for record in catalogue.records] == ["clx", "cly"]
    record = catalogue.records[0]
    assert record.attributes == {"group": "clx", "material": "Wood", "content": "Abstract"}
    assert record.split is None
    assert (decode_image(record.image.read(), "a") == 50).all()
    np.testing.assert_array_equal(decode_mask(record.mask.read(), "a", ignore_index=catalogue.ignore_index), MASK)


def test_more_columns_can_be_kept(tmp_path):
    catalogue = read_artefact(hub_folder(tmp_path), attributes=["type"])
    assert catalogue.records[0].attributes == {"group": "clx", "type": "Painting"}


@pytest.mark.parametrize("masks", ["annotations", "masks"])
def test_a_folder_of_pictures(tmp_path, masks):
    root = picture_folder(tmp_path, masks)
    catalogue = read_artefact(str(root))
    assert catalogue.classes == CLASSES
    assert [record.attributes for record in catalogue.records] == [
        {"group": "x", "material": "Wood", "content": "Abstract"},
        {"group": "y", "material": "Canvas", "content": "Artistic"},
    ]
    np.testing.assert_array_equal(decode_mask(catalogue.records[1].mask.read(), "a"), MASK)


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


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nowhere` is no file or folder here"):
        read_artefact(tmp_path / "nowhere")
