import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.kinds.heif import SUFFIXES
from hsl.data.files.records import FileSource
from hsl.data.formats.folder import read_folder, read_pictures
from hsl.data.formats.picture_files import PICTURE_SUFFIXES
from hsl.errors import DataError

REAL_DATA = Path(os.environ.get("HSL_REAL_DATA", "nowhere"))


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "jif": "JPEG", "tif": "TIFF", "jp2": "JPEG2000",
             "j2k": "JPEG2000", "pgm": "PPM", "pbm": "PPM", "pnm": "PPM"}  # fmt: skip
    kind = kinds.get(path.suffix[1:].lower(), path.suffix[1:].upper())
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(path, kind)


@pytest.fixture
def root(tmp_path):
    """Three pictures, nothing wrong."""
    root = tmp_path / "tiles"
    for name in ("a.png", "b.jpg", "c.tif"):
        picture(root / "images" / name, value=7)
        picture(root / "masks" / f"{name[0]}.png", value=1)
    (root / "dataset.yaml").write_text("classes: [background, crack]")
    return root


def message(root):
    with pytest.raises(DataError) as error:
        read_folder(root)
    return str(error.value)


class TestGoodFolders:
    def test_pictures_and_masks_are_enough(self, root):
        catalogue = read_folder(root)
        assert catalogue.name == "tiles"
        assert catalogue.classes == ("background", "crack")
        assert [record.id for record in catalogue.records] == ["a", "b", "c"]
        record = catalogue.records[1]
        assert record.image == FileSource(root / "images" / "b.jpg")
        assert record.mask == FileSource(root / "masks" / "b.png")
        assert (record.instances, record.attributes, record.split) == (None, {}, None)

    def test_the_root_may_be_a_string(self, root):
        assert read_folder(str(root)) == read_folder(root)

    @pytest.mark.parametrize(
        "suffix", [*(each for each in PICTURE_SUFFIXES if each not in SUFFIXES), ".PNG", ".Jpg", ".TIFF"]
    )
    def test_every_suffix_is_found_and_decoded(self, root, suffix):
        if suffix == ".npy":
            np.save(root / "images" / "d.x.npy", np.full((8, 8), 90, np.uint8))
        else:
            picture(root / "images" / f"d.x{suffix}", value=90)
        picture(root / "masks" / "d.x.png", value=1)
        record = read_folder(root).records[-1]
        assert record.id == "d.x"
        assert np.abs(decode_image(record.image.read(), "d") - 90.0).max() <= 2
        assert (decode_mask(record.mask.read(), "d") == 1).all()

    def test_records_are_sorted_by_id_not_by_file(self, root):
        for name in ("10.png", "2.jpg", "1.tif"):
            picture(root / "images" / name)
            picture(root / "masks" / f"{Path(name).stem}.png")
        assert [record.id for record in read_folder(root).records] == ["1", "10", "2", "a", "b", "c"]

    def test_other_files_are_passed_over(self, root):
        for name in ("images/.a.png", "images/Thumbs.db", "masks/._a.png", "images/notes.txt"):
            (root / name).write_bytes(b"x")
        assert len(read_folder(root).records) == 3

    def test_columns_of_labels_are_attributes_and_strings(self, root):
        text = "\ufeffid, label,group,severity\nb,crack,g1,03\na,,g 2,\n"
        (root / "labels.csv").write_text(text, encoding="utf-8")
        a, b, c = (record.attributes for record in read_folder(root).records)
        assert b == {"label": "crack", "group": "g1", "severity": "03"}
        assert a == {"group": "g 2"}  # an empty cell is not known
        assert c == {}

    def test_the_official_split(self, root):
        (root / "splits.csv").write_text("id,split\na,test\nc,train\n")
        assert [record.split for record in read_folder(root).records] == ["test", None, "train"]

    def test_the_official_split_in_the_words_of_others(self, root):
        (root / "splits.csv").write_text("id;split\nimages/a.png;TEST\nb.jpg;validation\n;\nc;Training\n;\n")
        assert [record.split for record in read_folder(root).records] == ["test", "val", "train"]

    def test_files_that_are_left_out_are_counted(self, root, caplog):
        (root / "images" / "d.avif").write_bytes(b"")
        picture(root / "masks" / "more" / "a.png")
        catalogue = read_folder(root)
        assert catalogue.not_read == (
            f"`{root}/images`: 1 not read: 1 avif. Convert the files to PNG.",
            f"`{root}/masks`: 1 not read: 1 in a sub-folder. Point to the sub-folder or write a pattern (`**/{{id}}`).",
        )
        assert [record.message for record in caplog.records] == list(catalogue.not_read)

    def test_names_of_either_normal_form_are_one(self, root):
        composed, decomposed = (unicodedata.normalize(form, "fläche") for form in ("NFC", "NFD"))
        picture(root / "images" / f"{decomposed}.png")
        picture(root / "masks" / f"{composed}.png")
        (root / "labels.csv").write_text(f"id,group\n{decomposed}.png,g\n", encoding="utf-8")
        record = read_folder(root).records[-1]
        assert (record.id, record.attributes) == (composed, {"group": "g"})
        assert record.mask is not None

    def test_instances_are_optional_for_each_picture(self, root):
        picture(root / "instances" / "b.png")
        instances = [record.instances for record in read_folder(root).records]
        assert instances == [None, FileSource(root / "instances" / "b.png"), None]

    def test_the_description_reaches_the_catalogue(self, root):
        text = "classes: [a, b]\npalette: {a: [0, 0, 0]}\nvalue_range: [0, 4095]\nignore_index: 9"
        (root / "dataset.yaml").write_text(text)
        catalogue = read_folder(root)
        assert catalogue.palette == {(0, 0, 0): 0}
        assert catalogue.value_range == (0, 4095)
        assert catalogue.ignore_index == 9


class TestBadFolders:
    def test_a_missing_folder(self, tmp_path):
        assert message(tmp_path / "nowhere").startswith(f"The data folder `{tmp_path}/nowhere` does not exist.")

    def test_no_pictures(self, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
        text = message(tmp_path)
        assert "2 faults" in text
        assert f"The folder `{tmp_path}/images` holds no picture. Put some there (.png, .jpg" in text
        assert f"The folder `{tmp_path}/masks` holds no picture" in text

    def test_no_folder_of_masks(self, root):
        (root / "masks").rename(root / "labels")
        assert message(root).startswith(f"The folder `{root}/masks` does not exist.")

    def test_a_picture_without_mask(self, root):
        picture(root / "images" / "z.bmp")
        assert message(root).startswith(
            f"Every picture should have a mask `<id>.png`. Without one are `{root}/images/z.bmp`."
        )

    def test_a_mask_without_picture(self, root):
        picture(root / "masks" / "z.png")
        assert message(root).startswith("Every mask should have a picture")
        assert f"`{root}/masks/z.png`" in message(root)

    def test_many_pictures_without_mask_are_counted(self, root):
        for number in range(9):
            picture(root / "images" / f"z{number}.png")
        assert f"`{root}/images/z4.png` and 4 more." in message(root)
        assert "z5" not in message(root)

    def test_two_pictures_with_one_id(self, root):
        picture(root / "images" / "a.jpg")
        assert "`a.jpg and a.png`" in message(root)

    def test_masks_that_are_no_png(self, root):
        (root / "masks" / "b.png").unlink()
        picture(root / "masks" / "b.jpg")
        assert message(root).startswith(f"Masks in `{root}/masks` should be PNG or TIFF, or of another kind that")

    def test_no_classes(self, root):
        (root / "dataset.yaml").unlink()
        assert "classes: [background, crack]" in message(root)

    def test_yaml_that_is_broken(self, root):
        (root / "dataset.yaml").write_text("classes: [a, b")
        assert f"`{root}/dataset.yaml` cannot be read as YAML" in message(root)

    @pytest.mark.parametrize("name", ["labels.csv", "splits.csv"])
    def test_a_table_without_ids(self, root, name):
        (root / name).write_text("name;split\na;train\n")
        assert f"`{root}/{name}` should have a column `id`. Found the columns ['name', 'split']. Add" in message(root)

    @pytest.mark.parametrize("name", ["labels.csv", "splits.csv"])
    def test_a_table_with_ids_that_are_not_there(self, root, name):
        (root / name).write_text("id,split\na,train\nx,val\ny.png,val\n")
        assert f"`{root}/{name}` has ids without a picture: `x` (line 3), `y.png` (line 4)." in message(root)

    def test_an_id_twice(self, root):
        (root / "labels.csv").write_text("id,label\na,x\nb,x\na,y\n")
        assert f"An id should stand in `{root}/labels.csv` once. Repeated are `a` (lines 2 and 4)." in message(root)

    def test_a_table_that_is_no_utf_8(self, root):
        (root / "labels.csv").write_bytes("id,label\na,Riß\n".encode("latin-1"))
        assert f"`{root}/labels.csv`, line 2, should be text in UTF-8" in message(root)

    def test_an_empty_table(self, root):
        (root / "labels.csv").write_text("")
        assert "should have a column `id`" in message(root)

    @pytest.mark.parametrize("word", ["holdout", "fold 1", "trian", ""])
    def test_an_unknown_part(self, root, word):
        (root / "splits.csv").write_text(f"id,split\na,{word}\nb,val\n")
        text = f"`split` in `{root}/splits.csv` should be one of train, val, test. Found `{word or 'nothing'} (a)`."
        assert message(root).startswith(text)

    @pytest.mark.parametrize("column", ["fold", "Split ", "group"])
    def test_the_official_split_has_no_other_column(self, root, column):
        (root / "splits.csv").write_text(f"id,split,{column}\na,train,1\n")
        text = message(root)
        assert "Alike are `split`, `Split`" in text or f"should have only id, split. Found `{column}`. Move" in text

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ("label.csv", "labels.csv"),
            ("Labels.csv", "labels.csv"),
            ("labels.xlsx", "labels.csv"),
            ("split.CSV", "splits.csv"),
            ("instance/a.png", "instances/"),
        ],
    )
    def test_an_optional_file_under_nearly_its_name(self, root, wrong, right):
        (root / wrong).parent.mkdir(exist_ok=True)
        (root / wrong).write_text("id,split\na,train\n")
        name = wrong.partition("/")[0]
        assert message(root).startswith(f"`{root}/{name}` is not read. Rename it to `{right}`")
        (root / name).rename(root / f"old_{name}")
        read_folder(root)

    @pytest.mark.parametrize("wrong", ["image", "Images", "imagse"])
    def test_a_folder_under_nearly_its_name(self, root, wrong):
        (root / "images").rename(root / wrong)
        assert message(root) == f"The folder `{root}/images` does not exist. Did you mean `{root}/{wrong}`?"

    def test_masks_under_nearly_their_name_are_not_optional(self, root):
        (root / "masks").rename(root / "mask")
        with pytest.raises(DataError, match=r"mask` is not read\. Rename it to `masks/`"):
            read_folder(root, masks_optional=True)

    def test_a_description_under_nearly_its_name(self, root):
        (root / "dataset.yaml").rename(root / "dataset.yml")
        assert message(root) == f"`{root}/dataset.yaml` does not exist. Rename `{root}/dataset.yml`."

    def test_a_map_of_instances_without_a_picture(self, root):
        picture(root / "instances" / "z.png")
        assert message(root).startswith("Every map of instances should have a picture of its name.")

    def test_everything_at_once(self, root):
        (root / "dataset.yaml").unlink()
        (root / "labels.csv").write_text("name\na\n")
        (root / "splits.csv").write_text("id,split\na,best\n")
        picture(root / "images" / "z.png")
        picture(root / "masks" / "y.png")
        text = message(root)
        assert text.startswith(f"`{root}` has 5 faults:\n- ")
        for part in ("dataset.yaml", "z.png", "y.png", "labels.csv", "splits.csv"):
            assert part in text


class TestPicturesAlone:
    def test_no_masks_are_needed(self, root):
        records, rest = read_pictures(root / "images")
        assert (dict(rest.pictures), rest.num_others) == ({}, 0)
        assert [record.id for record in records] == ["a", "b", "c"]
        assert records[2].image == FileSource(root / "images" / "c.tif")
        assert {record.mask for record in records} == {None}

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            read_pictures(tmp_path / "nowhere")

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(DataError, match="holds no picture"):
            read_pictures(tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "num_records", "num_groups", "num_instances", "parts"),
    [
        ("magnetic_tile", 1344, 207, 0, {None: 1344}),
        ("coffee_leaf", 500, 500, 0, {"train": 400, "val": 50, "test": 50}),
        ("nuclei_dsb2018", 664, 663, 664, {None: 664}),
    ],
)
def test_real_folders(name, num_records, num_groups, num_instances, parts):
    catalogue = read_folder(REAL_DATA / name)
    records = catalogue.records
    assert len(records) == num_records
    assert len({record.attributes["group"] for record in records}) == num_groups
    assert sum(record.instances is not None for record in records) == num_instances
    found = [record.split for record in records]
    assert {part: found.count(part) for part in set(found)} == parts
    image = decode_image(records[0].image.read(), "a")
    mask = decode_mask(records[0].mask.read(), "a")
    assert image.shape[:2] == mask.shape
    assert mask.max() < len(catalogue.classes)
