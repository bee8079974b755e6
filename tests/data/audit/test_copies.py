from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.audit._inputs import DataSet, picture

from hsl.data.audit.audit import Audit, audit
from hsl.data.labels.object_labels import TrainingObjects
from hsl.data.labels.pseudo_labels import PseudoTrainingLabels
from hsl.errors import ConfigError, DataError


def mask(row: int) -> np.ndarray:
    """Every class on one line."""
    found = np.zeros((60, 80), np.uint8)
    found[row, :3] = 0, 1, 2
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> DataSet:
    found = DataSet(tmp_path)
    for i in range(6):
        found.add(f"p{i}", ("train", "val", "test")[i % 3], picture(i), mask(0))
    return found


def audited(data: DataSet, **options: object) -> Audit:
    return audit(*data.take(), 0, near_duplicates="off", **options)  # type: ignore[arg-type]


def relabel(data: DataSet, **labels: str | None) -> None:
    """Attribute ``kind``; ``None``: not known."""
    records = [
        replace(one, attributes={"group": one.id} | ({"kind": kind} if (kind := labels.get(one.id, "x")) else {}))
        for one in data.records
    ]
    data.records = records


def test_copies_with_unlike_masks_stop(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(7))
    found = audited(pictures)
    (finding,) = found.findings
    assert (finding.rule, finding.severity, finding.ids) == ("g", "stop", ("copy", "p0"))
    assert [Path(file).name for file in finding.files] == [
        "images_copy.png", "masks_copy.png", "images_p0.png", "masks_p0.png",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"images_copy.png` \(train\) = .*images_p0.png` \(train\) \(unlike mask\)"):
        found.raise_if_stopped()
    assert [one.severity for one in audited(pictures, conflicts="warn").findings] == ["warn"]
    assert "data.audit.conflicts=warn" in finding.message
    assert audited(pictures, conflicts="off").findings == ()
    with pytest.raises(ConfigError, match="`conflicts` should be stop, warn or off"):
        audited(pictures, conflicts="maybe")


def test_copies_that_are_alike_are_warned_of(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(0))
    (finding,) = audited(pictures).findings
    assert (finding.rule, finding.severity, finding.ids) == ("g", "warn", ("copy", "p0"))
    assert "Remove the copies" in finding.message


def test_one_mask_stored_in_two_ways_is_no_conflict(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(0))
    path, buffer = pictures.folder / "masks_copy.png", BytesIO()
    Image.fromarray(mask(0)).save(buffer, "png", compress_level=0)
    assert buffer.getvalue() != path.read_bytes()
    path.write_bytes(buffer.getvalue())
    assert [one.severity for one in audited(pictures).findings] == ["warn"]


def test_copies_in_two_parts_are_rule_a_and_if_they_conflict_this_one_too(pictures: DataSet) -> None:
    pictures.add("like", "val", picture(0), mask(0))
    assert [one.rule for one in audited(pictures).findings] == ["a"]
    pictures.add("unlike", "val", picture(3), mask(7))
    found = audited(pictures).findings
    assert [(one.rule, one.severity) for one in found] == [("a", "stop"), ("g", "stop")]
    assert found[1].ids == ("p3", "unlike")


@pytest.mark.parametrize(("kind", "severity"), [("y", "stop"), ("x", "warn"), (None, "warn")])
@pytest.mark.parametrize("columns", ["kind", ["kind"]])
def test_unlike_labels(pictures: DataSet, columns: str | list[str], kind: str | None, severity: str) -> None:
    pictures.add("copy", "train", picture(0), mask(0))
    relabel(pictures, copy=kind)
    (finding,) = audited(pictures, image_labels=columns, missing_classes="off").findings
    assert finding.severity == severity
    assert ("(unlike `kind`)" in finding.message) == (severity == "stop")
    assert [one.severity for one in audited(pictures).findings] == ["warn"]  # a column that is not learnt


def test_masks_that_are_unknown_broken_or_not_the_set_s_own_contradict_none(pictures: DataSet) -> None:
    pictures.add("copy", "train", picture(0), mask(7))
    catalogue, scanned, split = pictures.take()
    drawn = replace(catalogue, relabelled=frozenset(split.parts(0)["train"]))
    (finding,) = audit(drawn, scanned, split, 0, near_duplicates="off").findings
    assert finding.severity == "warn"
    pictures.records[-1] = replace(pictures.records[-1], mask=None)
    catalogue, scanned, split = pictures.take()
    bare = replace(catalogue, masks_optional=True)
    assert [one.severity for one in audit(bare, scanned, split, 0, near_duplicates="off").findings] == ["warn"]


def test_masks_that_were_replaced_are_known_to_be(pictures: DataSet) -> None:
    catalogue, _, _ = pictures.take()
    sources = {one.id: one.mask for one in catalogue.records if one.mask is not None}
    assert TrainingObjects(sources, 0.5, 0, frozenset()).relabelled(catalogue, {"p0"}).relabelled == {"p0"}
    assert TrainingObjects(sources, 1.0, 0, frozenset()).relabelled(catalogue, {"p0"}).relabelled == set()
    pseudo = PseudoTrainingLabels(pictures.folder, {"p0": 1.0}, weigh_by_confidence=False, tiers={"A": 1})
    assert pseudo.relabelled(catalogue, {"p0"}).relabelled == {"p0"}
