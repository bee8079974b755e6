"""Label folders are stored, and GrabCut makes labels."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from hsl.data.labels.label_table import LabelRow, read_labels, read_labels_page
from hsl.errors import ConfigError, DataError
from hsl.files.output_folder import MARKER
from hsl.pseudo_labels.grabcut import ColourSeeds, UnseededError, grabcut_votes
from hsl.pseudo_labels.store import LabelFolder, read_confidence, read_mask

CLASSES = ["background", "leaf", "symptom"]
GREY, GREEN, OLIVE, BROWN = (200, 200, 200), (40, 140, 30), (100, 110, 90), (120, 70, 20)
COLOURS = {
    "background": [{"saturation": [0, 10], "value": [50, 100]}],
    "leaf": [{"hue": [60, 170], "saturation": [50, 100]}],
    "symptom": [{"hue": [10, 50], "saturation": [40, 100]}],
}


def leaf(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A green leaf with a brown spot and a dull part, which no colour of the seeds describes, on a grey table."""
    truth = np.zeros((60, 96), dtype=np.uint8)
    truth[10:50, 16:80] = 1
    truth[20:32, 30:44] = 2
    colours = np.array([GREY, GREEN, BROWN], dtype=np.int16)[truth]
    colours[12:24, 56:72] = OLIVE
    truth, colours = truth.repeat(scale, 0).repeat(scale, 1), colours.repeat(scale, 0).repeat(scale, 1)
    noise = np.random.default_rng(0).integers(-6, 7, colours.shape)
    return (colours + noise).clip(0, 255).astype(np.uint8), truth


def iou(votes: np.ndarray, truth: np.ndarray, index: int) -> float:
    found, true = votes.argmax(axis=0) == index, truth == index
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("scale", [1, 4])
def test_votes_find_leaf_and_spot(scale: int) -> None:
    image, truth = leaf(scale)
    votes = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert votes.shape == (3, *truth.shape)
    assert votes.dtype == np.float32
    assert (np.sort(votes, axis=0) == np.array([0, 0, 1])[:, None, None]).all()
    assert [iou(votes, truth, index) > 0.95 for index in range(3)] == [True] * 3


def test_what_no_seed_describes_is_the_main_class_inside_the_leaf() -> None:
    image, _ = leaf()
    votes = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert votes[1, 14:22, 58:70].mean() > 0.95


def test_the_symptom_colour_outside_the_foreground_is_background() -> None:
    image, _ = leaf()
    image[1:3, 1:3] = BROWN  # narrower than `clean`
    votes = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert votes[0, :5, :5].all()


def test_the_same_twice_whatever_opencv_did_before() -> None:
    image, _ = leaf(2)
    first = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    cv2.setRNGSeed(99)
    assert (grabcut_votes(image, ColourSeeds(COLOURS), CLASSES) == first).all()


def test_the_picture_stays_as_it_is_and_odd_sizes_are_kept() -> None:
    image, _ = leaf(3)
    image = image[:-1, :-7]
    before = image.copy()
    votes = grabcut_votes(image, ColourSeeds(COLOURS, longest_side=100), CLASSES)
    assert votes.shape == (3, 179, 281)
    assert (image == before).all()


def test_a_hue_range_goes_through_red() -> None:
    image, truth = leaf()
    image[truth == 2] = (200, 20, 60)  # hue 347
    image[20:26, 30:44] = (200, 60, 20)  # hue 13
    colours = COLOURS | {"symptom": [{"hue": [340, 20], "saturation": [40, 100]}]}
    assert iou(grabcut_votes(image, ColourSeeds(colours), CLASSES), truth, 2) > 0.95


def test_seeds_from_yaml() -> None:
    seeds = instantiate(OmegaConf.create({"_target_": "hsl.pseudo_labels.grabcut.ColourSeeds", "colours": COLOURS}))
    image, _ = leaf()
    expected = grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    np.testing.assert_array_equal(grabcut_votes(image, pickle.loads(pickle.dumps(seeds)), CLASSES), expected)
    with pytest.raises(UnseededError, match="'hue': "):
        grabcut_votes(np.full_like(image, 200), seeds, CLASSES)


def test_two_classes_and_a_class_without_colours() -> None:
    image, truth = leaf()
    two = {name: COLOURS[name] for name in CLASSES[:2]}
    assert iou(grabcut_votes(image, ColourSeeds(two), CLASSES[:2]), truth > 0, 1) > 0.95
    votes = grabcut_votes(image, ColourSeeds(two), CLASSES)
    assert not votes[2].any()


def test_a_later_class_wins_where_colours_overlap() -> None:
    image, _ = leaf()
    both = COLOURS | {"symptom": COLOURS["leaf"]}
    votes = grabcut_votes(image, ColourSeeds(both), CLASSES)
    assert votes[2, 35:48, 18:54].all()


@pytest.mark.parametrize(
    ("colour", "found", "other"), [(GREY, ["leaf", "symptom"], "background:"), (GREEN, ["background"], "leaf:")]
)
def test_a_picture_without_seeds(colour: tuple[int, int, int], found: list[str], other: str) -> None:
    image = np.full((40, 40, 3), colour, dtype=np.uint8)
    with pytest.raises(UnseededError, match="Widen `colours`") as error:
        grabcut_votes(image, ColourSeeds(COLOURS), CLASSES)
    assert all(f"{name}: [" in str(error.value) for name in found)
    assert other not in str(error.value)


def test_seeds_of_one_pixel_do() -> None:
    image = np.full((30, 30, 3), GREEN, dtype=np.uint8)
    image[0, 0] = GREY
    assert grabcut_votes(image, ColourSeeds(COLOURS, clean=1), CLASSES)[1].sum() == 899


def test_a_colour_of_both_is_no_seed() -> None:
    colours = {"background": [{"value": [0, 100]}], "leaf": COLOURS["leaf"]}
    with pytest.raises(UnseededError, match="leaf:"):
        grabcut_votes(leaf()[0], ColourSeeds(colours), CLASSES)


@pytest.mark.parametrize(
    ("colour", "message"),
    [
        ({"hues": [0, 10]}, "`hues`"),
        ({"hue": [0, 361]}, r"\[0, 360\]"),
        ({"saturation": [40, 30]}, r"saturation = \[40, 30\]"),
        ({"value": [0, 255]}, r"\[0, 100\]"),
        ({"value": [5]}, r"value = \[5\]"),
    ],
)
def test_colours_that_are_none(colour: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ColourSeeds({"leaf": [colour]})


@pytest.mark.parametrize("option", ["longest_side", "iterations", "clean"])
def test_numbers_out_of_range(option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        ColourSeeds(COLOURS, **{option: 0})


def test_colours_of_other_classes() -> None:
    image, _ = leaf()
    with pytest.raises(ConfigError, match=r"Found \['symptom'\]"):
        grabcut_votes(image, ColourSeeds(COLOURS), CLASSES[:2])
    with pytest.raises(ConfigError, match="background `background`"):
        grabcut_votes(image, ColourSeeds({"leaf": COLOURS["leaf"]}), CLASSES)
    with pytest.raises(ConfigError, match=r"Found colours for \['background'\]"):
        grabcut_votes(image, ColourSeeds({"background": COLOURS["background"]}), CLASSES)


# The folder of pseudo-labels: whole or not there, gone on with, never overwritten unasked.


SETTINGS = {"data": "leaves", "classes": ["background", "leaf"], "fold": 0}
ROW = LabelRow("b", "rust", "A", 0.9, 0.25, 0.5, True, "grabcut gradcam", "/pictures/b.jpg")
MASK = np.array([[0, 1], [255, 1]], np.uint8)
CONFIDENCE = np.array([[1.0, 0.6], [0.3, 0.0]], np.float32)


def write(path: Path, *names: str, overwrite: bool = False) -> Path:
    folder = LabelFolder(path, SETTINGS, overwrite=overwrite)
    for name in names:
        folder.add(replace(ROW, id=name), MASK, CONFIDENCE)
    return folder.finish()


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", "b", "a")
    table = read_labels(path)
    assert table.rows == (replace(ROW, id="a"), ROW)  # sorted by id
    assert (table.data, table.classes) == ("leaves", ("background", "leaf"))
    assert read_labels_page(path).items() >= {"format": 1, **SETTINGS}.items()
    assert (read_mask(path, "b") == MASK).all()
    assert np.abs(read_confidence(path, "b") - CONFIDENCE).max() <= 0.5 / 255 + 1e-7
    with Image.open(path / "confidence" / "b.png") as picture:
        assert (np.asarray(picture) == [[255, 153], [76, 0]]).all()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["labels"]
    assert sorted(one.name for one in path.iterdir()) == [MARKER, "confidence", "labels.csv", "labels.json", "masks"]


def test_nothing_is_at_the_place_before_all_is_done(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path / "labels", SETTINGS)
    folder.add(ROW, MASK, CONFIDENCE)
    assert not (tmp_path / "labels").exists()
    assert (folder.mask("b") == MASK).all()
    assert folder.confidence("b")[0, 0] == 1
    folder.close()


def test_goes_on_after_a_kill_in_the_middle_of_a_row(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path / "labels", SETTINGS)
    folder.add(ROW, MASK, CONFIDENCE)
    folder.close()
    with (folder.work / "rows.jsonl").open("a") as log:
        log.write('{"id": "c", "la')
    again = LabelFolder(tmp_path / "labels", SETTINGS)
    assert again.rows == {"b": ROW}
    again.add(replace(ROW, id="a"), MASK, CONFIDENCE)
    assert [row.id for row in read_labels(again.finish()).rows] == ["a", "b"]


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path / "labels", SETTINGS)
    folder.add(ROW, MASK, CONFIDENCE)
    folder.close()
    other = LabelFolder(tmp_path / "labels", {**SETTINGS, "fold": 1})
    assert other.rows == {}
    assert not (other.work / "masks").exists()
    other.close()


def test_labels_are_replaced_when_asked_for_and_only_by_whole_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", "a")
    (path / "review.json").write_text("{}")
    with pytest.raises(ConfigError, match="overwrite=true"):
        LabelFolder(path, SETTINGS)
    folder = LabelFolder(path, SETTINGS, overwrite=True)
    folder.add(ROW, MASK, CONFIDENCE)
    assert [row.id for row in read_labels(path).rows] == ["a"]
    folder.finish()
    assert [row.id for row in read_labels(path).rows] == ["b"]
    assert not (path / "review.json").exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["labels"]


def test_killed_while_it_was_moved(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", "a", "b")
    work = tmp_path / ".labels.partial"
    path.rename(work)  # as after the last file and before the move, but for the two files that are removed after it
    (work / "settings.json").write_text(json.dumps(SETTINGS, indent=1))
    rows = [json.dumps(vars_of(row)) for row in read_labels(work).rows]
    (work / "rows.jsonl").write_text("\n".join(rows) + "\n")
    folder = LabelFolder(path, SETTINGS)
    assert set(folder.rows) == {"a", "b"}
    folder.finish()
    assert len(read_labels(path).rows) == 2


def vars_of(row: LabelRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds something else"):
        LabelFolder(tmp_path / "mine", SETTINGS, overwrite=True)
    (tmp_path / "empty").mkdir()
    assert read_labels(write(tmp_path / "empty", "a")).rows


@pytest.mark.parametrize("change", ["masks/a.png", "masks/mine.png", "thesis.tex"])
def test_labels_that_were_corrected_by_hand_are_not_replaced(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "labels", "a")
    (path / "review.json").write_text("{}")
    (path / change).write_text("by hand")
    with pytest.raises(ConfigError, match=f"Found {change}, changed or not its own"):
        LabelFolder(path, SETTINGS, overwrite=True)
    (path / change).unlink()
    folder = LabelFolder(path, SETTINGS, overwrite=True)
    (path / change).write_text("by hand, meanwhile")
    folder.add(ROW, MASK, CONFIDENCE)
    with pytest.raises(ConfigError, match=change):
        folder.finish()
    folder.close()
    assert (path / change).read_text() == "by hand, meanwhile"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = LabelFolder(tmp_path / "labels", SETTINGS)
    with pytest.raises(ConfigError, match="another process"):
        LabelFolder(tmp_path / "labels", SETTINGS)
    first.discard()
    first.close()
    assert not list(tmp_path.iterdir())


def test_a_copy_of_a_picture_keeps_its_colours(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    folder = LabelFolder(tmp_path / "labels", SETTINGS)
    place = folder.keep_image("b", image)
    folder.add(replace(ROW, image=str(place)), MASK, CONFIDENCE)
    folder.finish()
    moved = (tmp_path / "labels").rename(tmp_path / "moved")
    (row,) = read_labels(moved).rows
    assert Path(row.image) == moved / place
    with Image.open(row.image) as picture:
        assert (np.asarray(picture) == image).all()


def test_pictures_are_found_whether_they_moved_with_the_labels_or_stayed(tmp_path: Path) -> None:
    data, home = tmp_path / "home" / "data", tmp_path / "home"
    data.mkdir(parents=True)
    (data / "a.png").write_bytes(b"a")
    folder = LabelFolder(home / "labels", SETTINGS)
    folder.add(replace(ROW, image=str(data / "a.png")), MASK, CONFIDENCE)
    folder.finish()
    alone = shutil.copytree(home / "labels", tmp_path / "elsewhere" / "labels")
    assert read_labels(alone).rows[0].image == str(data / "a.png")
    home.rename(tmp_path / "moved")
    assert read_labels(tmp_path / "moved" / "labels").rows[0].image == str(tmp_path / "moved" / "data" / "a.png")
    assert read_labels(alone).rows[0].image == str(data / "a.png")  # gone: where it was is said


@pytest.mark.parametrize("content", ["", "{", '{"format": 7}'])
def test_a_damaged_page_is_named(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "labels", "a")
    (path / "labels.json").write_text(content)
    with pytest.raises(DataError, match=r"labels\.json.*hsl label"):
        read_labels_page(path)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", "a")
    with pytest.raises(DataError, match=r"masks/b\.png"):
        read_mask(path, "b")


@pytest.mark.parametrize("name", [".git/config", "masks/.note", ".env"])
def test_hidden_files_of_the_users_are_not_replaced_with_the_labels(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "labels", "a")
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("mine")
    (path / ".DS_Store").write_text("junk")
    with pytest.raises(ConfigError, match="Choose another `output`, or move these files away"):
        LabelFolder(path, SETTINGS, overwrite=True)
    assert (path / name).read_text() == "mine"
    shutil.move(path / name, tmp_path / "kept")
    for folder in path.glob(".g*"):
        folder.rmdir()
    write(path, "b", overwrite=True)
    assert (path / "masks" / "b.png").exists()


def test_a_link_as_output(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="which does not exist"):
        LabelFolder(tmp_path / "gone", SETTINGS)
    path = write(tmp_path / "labels", "a")
    (tmp_path / "link").symlink_to(path)
    write(tmp_path / "link", "b", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (path / "masks" / "b.png").exists()
    assert not (path / "masks" / "a.png").exists()
