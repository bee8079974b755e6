import io
import json
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.data.audit._inputs import DataSet, picture

from hsl.console import PlainConsole
from hsl.data.audit import audit as module
from hsl.data.audit.audit import RULES, audit
from hsl.data.audit.audit_views import print_table
from hsl.data.audit.near_duplicates import ORIENTATIONS, turned
from hsl.data.files.scan import scan
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
