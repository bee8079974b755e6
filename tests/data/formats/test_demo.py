import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from skimage.morphology import skeletonize

from hsl.data.demo.damage import KINDS
from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.formats import demo
from hsl.data.formats.demo import CLASSES, read_demo
from hsl.errors import ConfigError, DataError

SMALL = {"num_pictures": 12, "size": 64}


def contents(catalogue):
    return {
        record.id: (record.image.read(), record.mask.read(), record.instances.read()) for record in catalogue.records
    }


def masks(catalogue):
    return np.stack([decode_mask(record.mask.read(), record.id) for record in catalogue.records])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The default set, drawn once."""
    return read_demo(tmp_path_factory.mktemp("demo"))


def test_it_is_a_folder_data_set_with_everything(shared):
    assert shared.classes == CLASSES == ("clean", "crack", "scratch", "paint_loss", "stain", "puncture")
    assert len(shared.records) == 160
    for record in shared.records[:8]:
        assert decode_image(record.image.read(), "a").shape == (128, 128, 3)
        assert decode_mask(record.mask.read(), "a").shape == (128, 128)
    assert {record.attributes["material"] for record in shared.records} == {"canvas", "plaster", "wood"}


def test_views_of_a_panel_are_a_group_of_one_material(shared):
    groups = {}
    for record in shared.records:
        groups.setdefault(record.attributes["group"], []).append(record)
    assert len(groups) == 40
    for records in groups.values():
        assert [record.attributes["view"] for record in records] == ["0", "1", "2", "3"]
        assert len({record.attributes["material"] for record in records}) == 1


def small_grey(record):
    picture = cv2.cvtColor(decode_image(record.image.read(), "a"), cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA).ravel().astype(float)
    return (grey - grey.mean()) / np.linalg.norm(grey - grey.mean())


def test_views_of_a_panel_are_alike_but_not_the_same(shared):
    pictures = np.stack([small_grey(record) for record in shared.records]).reshape(40, 4, -1)
    within = np.einsum("pif,pjf->pij", pictures, pictures)[:, *np.triu_indices(4, 1)]
    across = np.einsum("pf,qf->pq", pictures[:, 0], pictures[:, 0])[np.triu_indices(40, 1)]
    assert np.median(within) > np.quantile(across, 0.9)
    assert within.max() < 0.9999


def test_damage_is_rare_and_every_kind_is_there(shared):
    counts = np.bincount(masks(shared).ravel(), minlength=6)
    shares = counts / counts.sum()
    assert shares[0] > 0.93
    assert ((shares[1:] > 0.002) & (shares[1:] < 0.03)).all()
    present = np.stack([np.bincount(mask.ravel(), minlength=6) > 0 for mask in masks(shared)])
    assert (present.mean(axis=0)[1:] < 0.75).all()


def test_lines_are_one_to_two_pixels_wide(shared):
    for kind in (1, 2):
        lines = [mask == kind for mask in masks(shared)]
        width = sum(line.sum() for line in lines) / sum(skeletonize(line).sum() for line in lines)
        assert 1.2 < width < 2.4  # the skeleton counts a diagonal step as one pixel


def test_labels_say_what_the_mask_holds(shared):
    for record, mask in zip(shared.records, masks(shared), strict=True):
        counts = np.bincount(mask.ravel(), minlength=6)
        assert [record.attributes[kind] for kind in KINDS] == [str(int(count > 0)) for count in counts[1:]]
        expected = CLASSES[1 + counts[1:].argmax()] if counts[1:].any() else "clean"
        assert record.attributes["label"] == expected


def test_instances_number_the_objects_of_the_mask(shared):
    for record, mask in zip(shared.records, masks(shared), strict=True):
        ids = cv2.imdecode(np.frombuffer(record.instances.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert ids.dtype == np.uint16
        np.testing.assert_array_equal(ids > 0, mask > 0)
        assert np.unique(ids[ids > 0]).tolist() == list(range(1, ids.max() + 1))
        for number in range(1, ids.max() + 1):
            assert len(np.unique(mask[ids == number])) == 1


@pytest.mark.parametrize("size", [64, 96])
def test_every_group_of_the_smallest_sets_has_every_kind(tmp_path, size):
    found = masks(read_demo(tmp_path, num_pictures=20, size=size)).reshape(5, -1)
    for group in found:
        assert np.unique(group).tolist() == [0, 1, 2, 3, 4, 5]


def test_some_panels_are_clean(shared):
    labels = [record.attributes["label"] for record in shared.records]
    clean = {record.attributes["group"] for record in shared.records if record.attributes["label"] == "clean"}
    assert {"panel_007", "panel_015", "panel_023", "panel_031", "panel_039"} <= clean
    assert 20 <= labels.count("clean") < 40


def test_the_seed_decides_everything(tmp_path):
    first = contents(read_demo(tmp_path / "a", **SMALL))
    assert contents(read_demo(tmp_path / "b", **SMALL)) == first
    other = contents(read_demo(tmp_path / "a", **SMALL, seed=1))
    assert all(first[id_] != other[id_] for id_ in first)


def test_more_pictures_leave_the_first_ones_as_they_are(tmp_path):
    few, many = (contents(read_demo(tmp_path, num_pictures=n, size=64)) for n in (5, 9))
    assert few.items() <= many.items()
    assert [len(few), len(many)] == [5, 9]
    assert sorted(few)[-1] == "panel_001_view_0"


def test_it_is_drawn_once(tmp_path, monkeypatch):
    read_demo(tmp_path, **SMALL)
    monkeypatch.setattr(demo, "paint", None)
    assert len(read_demo(tmp_path, **SMALL).records) == 12


def test_other_parameters_are_another_set(tmp_path):
    for options in ({}, {"seed": 1}, {"damage_width": 1.0}, {"damage_density": 2.0}, {"views_per_panel": 2}):
        read_demo(tmp_path, **SMALL, **options)
    assert len(list(tmp_path.iterdir())) == 5


def test_two_processes_at_once_both_succeed(tmp_path):
    call = f"read_demo({str(tmp_path)!r}, **{SMALL})"
    code = f"from hsl.data.formats.demo import read_demo; print(len({call}.records))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["12\n", "12\n"]
    assert len(list(tmp_path.iterdir())) == 1


def test_whoever_comes_second_takes_what_the_first_made(tmp_path, monkeypatch):
    write_tables, others = demo._write_tables, []

    def overtaken(*arguments):
        write_tables(*arguments)
        if not others:
            others.append(None)
            others.append(contents(read_demo(tmp_path, **SMALL)))

    monkeypatch.setattr(demo, "_write_tables", overtaken)
    assert contents(read_demo(tmp_path, **SMALL)) == others[1]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_write_tables", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_demo(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"The demo data cannot be written to `.*file/demo-.*`data\.root`"):
        read_demo(tmp_path / "file", **SMALL)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_write_png", full)
    with pytest.raises(DataError, match=r"No space left on device\. Free space there"):
        read_demo(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("num_pictures", 0, "at least 1"),
        ("size", 31, "at least 32"),
        ("seed", -1, "at least 0"),
        ("views_per_panel", 0, "at least 1"),
        ("damage_width", 0.0, "above 0"),
        ("damage_density", -1.0, "above 0"),
        ("damage_contrast", 1.1, r"in \[0, 1\]"),
        ("damage_contrast", -0.1, "at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path, name, value, rule):
    with pytest.raises(
        ConfigError, match=rf"`data.reader.{name}` should be {rule}. Found `data.reader.{name} = {value}`"
    ):
        read_demo(tmp_path, **{name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_160_pictures_take_less_than_10_seconds_of_one_core(tmp_path):
    start = time.process_time()
    read_demo(tmp_path)
    assert time.process_time() - start < 10
