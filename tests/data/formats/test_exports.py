"""Every format of annotation tools: the same scenes become the same masks, and predictions come back."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from tests.data.formats import _exports
from tests.data.formats._exports import CLASSES, EXPORTS, LABELS, scenes
from tests.data.formats._read import ids_of, mask_of, read

from hsl.data.files.scan import scan
from hsl.data.writers.regions import Segmented
from hsl.verbs.predict.tool_files import writer_of

SHARED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MASKS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2))


@pytest.mark.parametrize("name", EXPORTS)
def test_each_format_reads_the_same_scenes(name: str, tmp_path: Path) -> None:
    drawn = scenes()
    EXPORTS[name](tmp_path, drawn)
    catalogue = read(name, tmp_path)
    assert catalogue.classes[0] == ("unlabelled" if name == "cityscapes" else "background")
    assert catalogue.classes[1:] == CLASSES[1:]
    assert [record.id for record in catalogue.records] == [scene.name for scene in drawn]
    for record, scene in zip(catalogue.records, drawn, strict=True):
        np.testing.assert_array_equal(mask_of(catalogue, record), scene.mask(), err_msg=f"{name}: {scene.name}")
        np.testing.assert_array_equal(ids_of(record) > 0, scene.mask() > 0)
        assert len(np.unique(ids_of(record))) == len(scene.objects) + 1
    splits = [record.split for record in catalogue.records]
    assert splits in ([None] * len(drawn), [scene.split for scene in drawn])
    found = scan(catalogue, None, 0)
    assert found.errors == {}
    assert len({record.mask.stamp() for record in catalogue.records if record.mask}) == len(drawn)
    told = " ".join(catalogue.not_read)
    contested = sum(int((_exports.inside(a) & _exports.inside(b)).sum()) for (_, a), (_, b) in pairs(drawn))
    assert (f"{contested} pixels of {len(drawn) - 1} pictures lie in regions of more than one class" in told) == (
        name not in ("voc", "cityscapes")
    ), told


def pairs(drawn: list[_exports.Scene]) -> list[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]]:
    return [(scene.objects[0], scene.objects[1]) for scene in drawn if scene.objects]


@pytest.mark.parametrize("name", ["labelme", "coco", "yolo", "cvat", "label_studio", "supervisely"])
def test_the_order_of_files_and_items_changes_nothing(name: str, tmp_path: Path) -> None:
    drawn = scenes()
    EXPORTS[name](tmp_path / "a" / "data", drawn)
    random.Random(1).shuffle(drawn)
    EXPORTS[name](tmp_path / "b" / "data", drawn)
    one, other = (read(name, tmp_path / folder / "data") for folder in "ab")
    assert one.classes == other.classes
    for a, b in zip(one.records, other.records, strict=True):
        assert (a.id, a.split) == (b.id, b.split)
        np.testing.assert_array_equal(mask_of(one, a), mask_of(other, b))


@pytest.mark.parametrize("name", ["labelme", "coco", "cvat", "yolo"])
@SHARED
@given(mask=MASKS)
def test_predictions_written_for_a_tool_are_read_back(
    name: str, mask: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp(name)
    mask[0, 0], wanted = 1, mask  # some class is there
    picture = root / "images" / "one.png"
    picture.parent.mkdir()
    Image.fromarray(np.zeros(mask.shape, np.uint8)).save(picture)
    writer = writer_of(name, root, CLASSES, root)
    assert writer is not None
    writer.add(Segmented("one", picture, [mask]))
    writer.close()
    catalogue = read(name, root, classes=list(LABELS) if (mask == 2).any() else ["crack"])
    np.testing.assert_array_equal(mask_of(catalogue), wanted)
