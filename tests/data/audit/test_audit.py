import io
import json
import logging
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.data.audit._inputs import DataSet, picture
from tests.data.labels._inputs import write_data

from hsl.console import PlainConsole
from hsl.data.audit import audit as module
from hsl.data.audit import instance_check as check_module
from hsl.data.audit.audit import RULES, audit
from hsl.data.audit.audit_views import print_table
from hsl.data.audit.instance_check import InstanceMap, check_instances, read_instance_map
from hsl.data.audit.near_duplicates import ORIENTATIONS, turned
from hsl.data.files.scan import scan
from hsl.data.formats.folder import read_folder
from hsl.data.splits.folds import kfold
from hsl.errors import ConfigError, DataError


@pytest.fixture
def pictures(tmp_path: Path) -> DataSet:
    found = DataSet(tmp_path)
    for i in range(9):
        found.add(f"p{i}", ("train", "val", "test")[i % 3], picture(i))
    return found


def test_a_sound_fold_passes(pictures: DataSet) -> None:
    found = audit(*pictures.take(), 0)
    assert found.findings == ()
    assert not found.stopped
    found.raise_if_stopped()
    assert found.num_pictures == {"train": 3, "val": 3, "test": 3}
    assert (found.num_inside, found.num_across) == (0, 0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_offline_copy_in_another_part_is_found_in_every_orientation(pictures: DataSet, orientation: str) -> None:
    """810 of the 840 test pictures of a published split have a rotated twin in its training part."""
    pictures.add("copy", "test", turned(picture(0), ORIENTATIONS.index(orientation)), suffix="jpg")
    found = audit(*pictures.take(), 0)
    (pair,) = found.pairs
    assert (pair.second, pair.first, pair.second_part, pair.first_part) == ("p0", "copy", "train", "test")
    assert pair.correlation > 0.98
    back = turned(picture(0), ORIENTATIONS.index(pair.orientation))
    np.testing.assert_array_equal(back, turned(picture(0), ORIENTATIONS.index(orientation)))
    (finding,) = found.findings
    assert (finding.rule, finding.severity, finding.ids) == ("c", "stop", ("copy", "p0"))
    assert all(name in finding.message for name in finding.files)
    with pytest.raises(DataError, match=r"The audit stops fold 0 of `pictures`:\n\(c, stop\) 1 pairs"):
        found.raise_if_stopped()


def test_a_copy_in_the_part_that_stops_is_found(pictures: DataSet) -> None:
    pictures.add("copy", "stop", turned(picture(0), 3), suffix="jpg")
    found = audit(*pictures.take(), 0)
    assert found.stopped
    assert [(pair.first_part, pair.second_part) for pair in found.pairs] == [("stop", "train")]
    assert found.num_pictures == {"train": 3, "stop": 1, "val": 3, "test": 3}


def test_a_copy_with_other_light_size_and_noise_is_found(pictures: DataSet) -> None:
    changed = cv2.resize(picture(1), (160, 120)).astype(float) * 0.6 + 40
    changed += np.random.default_rng(0).normal(0, 8, changed.shape)
    pictures.add("copy", "train", np.clip(changed, 0, 255).astype(np.uint8))
    assert [(p.first, p.second) for p in audit(*pictures.take(), 0).pairs] == [("copy", "p1")]


def test_copies_within_a_part_are_counted_and_do_no_harm(pictures: DataSet) -> None:
    pictures.add("copy", "val", picture(1)[:, ::-1])
    found = audit(*pictures.take(), 0)
    assert (found.num_inside, found.num_across, found.findings) == (1, 0, ())


def test_frames_of_one_clip_are_near_duplicates_across_parts(pictures: DataSet) -> None:
    scene = picture(99, 120, 200)
    for frame in range(12):
        view = scene[:, frame : frame + 80][:60]
        pictures.add(f"frame{frame:02d}", ("train", "train", "val")[frame % 3], view)
    found = audit(*pictures.take(), 0)
    assert found.num_across >= 8
    assert all(pair.first.startswith("frame") for pair in found.pairs)


def test_severities_come_from_the_config(pictures: DataSet) -> None:
    pictures.add("copy", "test", picture(0)[::-1])
    catalogue, scanned, split = pictures.take()
    assert audit(catalogue, scanned, split, 0).stopped
    warned = audit(catalogue, scanned, split, 0, near_duplicates="warn")
    assert not warned.stopped
    warned.raise_if_stopped()
    assert [finding.severity for finding in warned.findings] == ["warn"]
    for off in ("off", None, False):
        unlooked = audit(catalogue, scanned, split, 0, near_duplicates=off)
        assert (unlooked.findings, unlooked.pairs, unlooked.near_duplicates) == ((), (), "off")
    for name in ("near_duplicates", "missing_classes"):
        with pytest.raises(ConfigError, match=f"`{name}` should be stop, warn or off. Found `{name} = maybe`"):
            audit(catalogue, scanned, split, 0, **{name: "maybe"})


def test_the_threshold_decides(pictures: DataSet) -> None:
    other = (0.75 * picture(0) + 0.25 * picture(100)).astype(np.uint8)  # correlation about 0.95
    pictures.add("like_p0", "test", other)
    taken = pictures.take()
    assert audit(*taken, 0).num_across == 0
    assert [(p.first, p.second) for p in audit(*taken, 0, threshold=0.8).pairs] == [("like_p0", "p0")]
    with pytest.raises(ConfigError, match="`threshold` should be"):
        audit(*taken, 0, threshold=2.0)


def test_missing_classes_stop_warn_or_are_not_looked_for(tmp_path: Path) -> None:
    found = DataSet(tmp_path)
    for i in range(4):
        mask = np.zeros((60, 80), np.uint8)
        mask[0, : i + 1] = np.arange(i + 1) % 3
        found.add(f"p{i}", "train" if i < 2 else "val", picture(i), mask)
    taken = found.take()
    with pytest.raises(DataError, match=r"crack \(2 in val\)"):
        audit(*taken, 0).raise_if_stopped()
    assert [f.severity for f in audit(*taken, 0, missing_classes="warn").findings] == ["warn"]
    assert audit(*taken, 0, missing_classes="off").findings == ()


def test_a_fold_out_of_range(pictures: DataSet) -> None:
    with pytest.raises(ConfigError, match=r"`fold` should be in \[0, 1\). Found `fold = 9`"):
        audit(*pictures.take(), 9)


def test_all_findings_come_at_once_and_unreadable_pictures_are_no_duplicates(pictures: DataSet) -> None:
    pictures.add("wrong", "train", picture(50), np.full((60, 80), 77, np.uint8))
    pictures.add("small", "train", picture(51), np.zeros((30, 40), np.uint8))
    for name, part in (("broken1", "train"), ("broken2", "test")):
        pictures.add(name, part, picture(52))
        (pictures.folder / f"images_{name}.png").write_bytes(f"no picture {name}".encode())
    found = audit(*pictures.take(), 0)
    assert [finding.rule for finding in found.findings] == ["d", "e", "e"]
    assert found.num_across == 0
    with pytest.raises(DataError) as error:
        found.raise_if_stopped()
    for name in (
        "masks_wrong.png",
        "images_small.png",
        "masks_small.png",
        "images_broken1.png",
        "images_broken2",
    ):
        assert name in str(error.value)


def test_json_holds_everything(pictures: DataSet) -> None:
    pictures.add("copy", "test", picture(0)[::-1])
    found = audit(*pictures.take(), 0)
    content = json.loads(found.to_json())
    assert content["stopped"] is True
    assert content["data"] == "pictures"
    assert content["num_pictures"] == {"train": 3, "val": 3, "test": 4}
    assert content["pairs"] == [
        {
            "first": "copy",
            "second": "p0",
            "first_part": "test",
            "second_part": "train",
            "correlation": content["pairs"][0]["correlation"],
            "orientation": "vflip",
        }
    ]
    assert content["findings"][0]["files"] == list(found.findings[0].files)


def test_pairs_are_sorted_and_kept_up_to_a_bound(pictures: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        noisy = picture(0).astype(float) + np.random.default_rng(i).normal(0, 3 + i, (60, 80, 3))
        pictures.add(f"copy{i}", ("train", "val")[i % 2], np.clip(noisy, 0, 255).astype(np.uint8))
    taken = pictures.take()
    whole = audit(*taken, 0)
    # 7 copies, 4 in train and 3 in val: 12 pairs across, 9 inside
    assert (whole.num_across, whole.num_inside, len(whole.pairs)) == (12, 9, 12)
    correlations = [pair.correlation for pair in whole.pairs]
    assert correlations == sorted(correlations, reverse=True)
    monkeypatch.setattr(module, "MAX_PAIRS", 5)
    cut = audit(*taken, 0)
    assert cut.pairs == whole.pairs[:5]
    assert cut.num_across == 12
    assert "12 pairs" in cut.findings[0].message


def test_the_search_is_stored_for_all_folds(pictures: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue, scanned, _ = pictures.take()
    split = kfold(
        catalogue,
        scanned,
        num_folds=3,
        groups="group",
        stratify=None,
        test_from="fraction",
        test_fraction=0.0,
        seed=0,
    )
    cache = pictures.folder / "cache"
    first = audit(catalogue, scanned, split, 0, cache_dir=cache)
    assert first == audit(catalogue, scanned, split, 0)
    monkeypatch.setattr("hsl.data.audit.near_duplicates.find_near_duplicates", lambda *_: pytest.fail("searched"))
    assert audit(catalogue, scanned, split, 2, cache_dir=str(cache)).fold == 2


def table(pictures: DataSet, width: int = 120, **options: str) -> str:
    console = PlainConsole(file=io.StringIO(), width=width)
    print_table(audit(*pictures.take(), 0, **options), console)
    return console.file.getvalue()


def test_the_table_names_every_rule(pictures: DataSet) -> None:
    text = table(pictures)
    for rule, title in RULES.items():
        assert f"({rule}) {title}" in text
    assert text.count("passed") == 7
    assert "(b) not checked: no groups known: each picture is its own." in text
    assert "0 pairs across parts, 0 inside" in text
    text = table(pictures, near_duplicates="off")
    assert text.count("passed") == 6
    assert "off" in text
    assert "pairs across" not in text


def test_the_table_shows_findings_whole_and_takes_no_name_for_markup(pictures: DataSet) -> None:
    pictures.add("[red]copy", "test", picture(0)[::-1])
    text = table(pictures, width=60)
    assert "stop" in text
    assert "images_[red]copy.png` (test) with" in text
    assert "data.audit.near_duplicates=warn" in text


@pytest.mark.real_data
def test_magnetic_tile_leaks_without_groups_and_passes_with_them() -> None:
    from hsl.data.formats.folder import read_folder

    catalogue = read_folder(Path(os.environ["HSL_REAL_DATA"]) / "magnetic_tile")
    scanned = scan(catalogue, None, 1)
    make = partial(kfold, num_folds=3, stratify="rarest_class", test_from="fraction", test_fraction=0.15, seed=0)
    for fold in range(3):
        sound = audit(catalogue, scanned, make(catalogue, scanned, groups="group"), fold)
        assert sound.findings == ()
        assert sound.num_inside == pytest.approx(759, abs=5)
        leaking = audit(catalogue, scanned, make(catalogue, scanned, groups=None), fold)
        assert [(f.rule, f.severity) for f in leaking.findings] == [("b", "warn"), ("c", "stop")]
        assert leaking.num_across > 300


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def read_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the pictures whose maps are read."""
    seen: list[str] = []
    monkeypatch.setattr(
        check_module, "read_instance_map", lambda record, how: seen.append(record.id) or read_instance_map(record, how)
    )
    return seen


def ids(root: Path, name: str = "p0") -> NDArray[np.uint16]:
    return np.asarray(cv2.imread(str(root / f"instances/{name}.png"), cv2.IMREAD_UNCHANGED), np.uint16)


def write(root: Path, name: str, values: NDArray[np.uint16], folder: str = "instances") -> None:
    cv2.imwrite(str(root / f"{folder}/{name}.png"), values)


def check(root: Path, cache_dir: Path | None = None) -> None:
    check_instances(read_folder(root), cache_dir, 0)


def test_maps_that_fit_pass_and_so_do_pictures_without_objects(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = np.zeros((32, 32), np.uint8)
    write(root, "p3", empty.astype(np.uint16))
    write(root, "p3", empty, "masks")
    write(root, "p4", empty.astype(np.uint16))
    write(root, "p4", empty + np.uint8(255), "masks")  # nothing is known
    (root / "instances/p5.png").unlink()
    check(root)
    assert not caplog.records


def test_every_kind_of_fault_is_named_at_once_in_whatever_part(root: Path) -> None:
    gaps, whole = ids(root), ids(root)
    gaps[gaps == 3] = 99
    for name in ("p0", "p1", "p2", "p7"):
        write(root, name, gaps)
    write(root, "p3", np.zeros_like(whole))
    write(root, "p4", whole[:16])
    write(root, "p5", np.roll(whole, 4, axis=1))
    (root / "instances/p6.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        check(root)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("should have maps of instance ids that fit. Found:")
    assert len(lines) == 5
    assert "4 maps of instance ids have gaps" in lines[0]
    assert lines[0].count("has no 3 of 1 to 99") == 3
    assert "and 1 more. Number the objects" in lines[0]
    assert f"1 maps of instance ids are empty though their masks have objects: `{root}/instances/p3.png`." in lines[1]
    assert "p4.png` is 16 x 32, not 32 x 32. Export both" in lines[2]
    assert "show other objects than their masks" in lines[3]
    assert "p6.png" in lines[4]


def test_a_border_that_masks_leave_out_only_warns(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = cv2.imread(str(root / "masks/p0.png"), cv2.IMREAD_UNCHANGED)
    found = ids(root)
    few = np.where(found == 1, 0, mask)  # 25 of 400 pixels
    write(root, "p0", few, "masks")
    with caplog.at_level(logging.WARNING):
        check(root)
    assert not caplog.records
    write(root, "p0", np.where(found <= 4, 0, mask), "masks")
    with caplog.at_level(logging.WARNING):
        check(root)
    assert "p0.png` in 25 % of the pixels of objects" in caplog.text
    assert len(caplog.records) == 1
    write(root, "p0", np.where(found <= 9, 0, mask), "masks")
    with pytest.raises(DataError, match=r"p0\.png` in 56 % of the pixels of objects"):
        check(root)


def test_ignored_pixels_are_no_disagreement(root: Path) -> None:
    write(root, "p0", np.full((32, 32), 255, np.uint8), "masks")
    check(root)


def test_a_broken_mask_is_left_to_the_audit(root: Path) -> None:
    (root / "masks/p0.png").write_bytes(b"nothing")
    check(root)


def test_without_a_mask_the_map_is_held_against_the_picture(root: Path) -> None:
    (root / "masks/p0.png").unlink()
    check_instances(read_folder(root, masks_optional=True), None, 0)
    write(root, "p0", ids(root)[:16])
    with pytest.raises(DataError, match="is 16 x 32, not 32 x 32"):
        check_instances(read_folder(root, masks_optional=True), None, 0)


def test_only_new_and_changed_files_are_read_again(root: Path, tmp_path: Path, read_ids: list[str]) -> None:
    cache = tmp_path / "cache"
    check(root, cache)
    assert len(read_ids) == 8
    check(root, cache)
    assert len(read_ids) == 8
    write(root, "p2", np.where(ids(root, "p2") == 16, 0, ids(root, "p2")).astype(np.uint16))
    check(root, cache)
    write(root, "p3", np.zeros((32, 32), np.uint8), "masks")
    with pytest.raises(DataError, match="p3"):
        check(root, cache)
    with pytest.raises(DataError, match="p3"):  # what was found wrong is stored as well
        check(root, cache)
    assert read_ids[8:] == ["p2", "p3"]
    (root / "dataset.yaml").write_text("classes: [background, nucleus]\nignore_index: 90\n")
    with pytest.raises(DataError, match="p3"):
        check(root, cache)
    assert len(read_ids) == 18


def test_a_file_that_cannot_be_read_and_a_damaged_cache_are_read_again(
    root: Path, tmp_path: Path, read_ids: list[str]
) -> None:
    good = (root / "instances/p1.png").read_bytes()
    (root / "instances/p1.png").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(DataError, match=r"p1\.png"):
            check(root, tmp_path / "cache")
    assert read_ids[8:] == ["p1"]
    (root / "instances/p1.png").write_bytes(good)
    (stored,) = (tmp_path / "cache").iterdir()
    for text in ("{", "[]", '{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}'):
        stored.write_text(text)
        check(root, tmp_path / "cache")
    assert len(read_ids) == 9 + 3 * 8


def test_what_is_seen_of_one_map(root: Path) -> None:
    found = ids(root)
    found[found == 2] = 40
    found[0, :] = 41  # 32 pixels, one of them ignored
    write(root, "p0", found)
    record = read_folder(root).records[0]
    seen = read_instance_map(record, check_module.Decoding(None, None, 255))
    assert seen == InstanceMap(32, 32, 32, 32, 17, 41, 2, 400 + 31, 31)
