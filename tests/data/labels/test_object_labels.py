import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.data.labels._inputs import make, write_data

from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import FileSource, Record
from hsl.data.formats.folder import read_folder
from hsl.data.labels import object_labels as module
from hsl.data.labels.image_labels import read_image_labels
from hsl.data.labels.object_labels import AnnotatedObjects, ObjectLabels, distance_map, read_instances
from hsl.data.patches.patch_sampling import PatchSampling
from hsl.errors import ConfigError, DataError


def prepared(root: Path, **settings: Any) -> object:
    data = make(root, ObjectLabels(**settings), image_labels=None, image_size=32)
    data.prepare()
    return data


def training(data: object) -> dict[str, dict[str, torch.Tensor]]:
    seen = {}
    for batch in data.train_dataloader():  # type: ignore[attr-defined]
        raw = batch["image"].clone()
        done = data.on_after_batch_transfer(batch, 0)  # type: ignore[attr-defined]
        torch.testing.assert_close(done["targets"]["reconstruction"], raw.float() / 255, atol=1e-6, rtol=0)
        entry = {"mask": done["masks"]["segmentation"][0]}
        if "hv" in done["targets"]:
            entry["hv"] = done["targets"]["hv"][0]
        seen[batch["id"][0]] = entry | {key: one["segmentation"][0] for key, one in done.items() if key == "unlabelled"}
    return seen


def test_all_objects_annotated(tmp_path: Path) -> None:
    data = prepared(write_data(tmp_path / "data"))
    expected = distance_map(read_instances(FileSource(tmp_path / "data/instances/p0.png")))
    for entry in training(data).values():
        assert (entry["mask"] == 1).sum() == 16 * 25
        assert "unlabelled" not in entry
        np.testing.assert_allclose(entry["hv"].numpy(), expected, atol=1 / 255)


def test_patches_take_their_part_of_the_distance_map(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    patches = PatchSampling(size=24, min_distance=12, foreground=None, renew="epoch", max_per_picture=None)
    data = make(root, ObjectLabels(), image_labels=None, image_size=24, patches=patches)
    data.prepare()
    whole = distance_map(read_instances(FileSource(root / "instances/p0.png")))
    seen = training(data)
    assert len(seen) > 8
    for name, entry in seen.items():
        y, x = map(int, name.partition("@")[2].split(","))
        expected = np.zeros((24, 24), np.float32)
        part = whole[y : y + 24, x : x + 24]
        expected[: part.shape[0], : part.shape[1]] = part
        np.testing.assert_allclose(entry["hv"].numpy(), expected, atol=1 / 255)
        counted = (entry["mask"] != 255).numpy()
        assert ((entry["hv"].numpy() > 0) == (entry["mask"] == 1).numpy())[counted].all()


def test_a_share_of_the_objects(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    some, more = (training(prepared(root, annotated_fraction=f, seed=1)) for f in (0.3, 0.7))
    shares = []
    for name, entry in some.items():
        kept = entry["mask"] == 1
        assert int(kept.sum()) % 25 == 0  # whole objects
        assert torch.equal(entry["unlabelled"], entry["mask"] == 0)
        assert entry["mask"][0, 0] == 255
        assert not (kept & (more[name]["mask"] != 1)).any()  # a larger fraction holds those of a smaller one
        shares.append(int(kept.sum()) / 400)
    assert np.mean(shares) == pytest.approx(0.3, abs=0.12)
    assert len(set(shares)) > 1  # not the same objects in every picture
    again = training(prepared(root, annotated_fraction=0.3, seed=1))
    assert all(torch.equal(again[name]["mask"], entry["mask"]) for name, entry in some.items())


def test_validation_keeps_the_whole_mask(tmp_path: Path) -> None:
    data = prepared(write_data(tmp_path / "data"), annotated_fraction=0.3)
    for batch in data.val_dataloader():  # type: ignore[attr-defined]
        assert (batch["masks"]["segmentation"] == 1).sum() == 400
        assert "targets" not in batch
    for record in data.prepared.catalogue.records:  # type: ignore[attr-defined]
        whole = (decode_mask(record.mask.read(), record.id, None, 255) == 1).sum() == 400
        assert whole or record.id in data.prepared.parts["train"]  # type: ignore[attr-defined]


def test_errors(tmp_path: Path) -> None:
    for fraction in (0.0, 1.5):
        with pytest.raises(ConfigError, match=rf"annotated_fraction = {fraction}"):
            ObjectLabels(annotated_fraction=fraction)
    with pytest.raises(DataError, match="two classes"):
        prepared(write_data(tmp_path / "three", classes="[background, a, b]"))
    root = write_data(tmp_path / "gap")
    ids = cv2.imread(str(root / "instances/p0.png"), cv2.IMREAD_UNCHANGED)
    ids[ids == 3] = 99
    cv2.imwrite(str(root / "instances/p0.png"), ids)
    with pytest.raises(DataError, match=r"p0\.png` should hold the ids 1 to 99 without a gap\. Found no 3\."):
        read_instances(FileSource(root / "instances/p0.png"))
    cv2.imwrite(str(root / "instances/p0.png"), np.zeros_like(ids))
    assert not read_instances(FileSource(root / "instances/p0.png")).any()
    with pytest.raises(
        ConfigError, match=r"`data\.labels\.targets` should name hv and reconstruction\. Found \['edge'\]"
    ):
        ObjectLabels(targets={"edge": 1.0})


def test_instances_are_demanded_only_where_something_needs_them(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    shutil.rmtree(root / "instances")
    for needing in ({}, {"annotated_fraction": 0.5, "targets": {"hv": 0.0}}):
        with pytest.raises(DataError, match="map of instance ids"):
            prepared(root, **needing)
    assert len(training(prepared(root, targets={"hv": 0.0, "reconstruction": 1.0}))) == 4


def test_a_target_without_a_weight_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_data(tmp_path / "data")
    both = training(prepared(root, annotated_fraction=0.5))
    monkeypatch.setattr(module, "distance_map", lambda _: pytest.fail("a distance map was made"))
    off = prepared(root, annotated_fraction=0.5, targets={"hv": 0.0, "reconstruction": 0.5})
    for name, entry in training(off).items():
        assert "hv" not in entry
        assert torch.equal(entry["mask"], both[name]["mask"])
        assert torch.equal(entry["unlabelled"], both[name]["unlabelled"])
    neither = prepared(root, targets={"hv": 0, "reconstruction": 0})
    assert all("targets" not in neither.on_after_batch_transfer(b, 0) for b in neither.train_dataloader())  # type: ignore[attr-defined]


def test_a_fault_in_validation_or_test_stops_before_the_first_epoch(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    parts = prepared(root).prepared.parts  # type: ignore[attr-defined]
    for part in ("val", "test"):
        path = root / f"instances/{parts[part][0]}.png"
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(ids == 3, 99, ids).astype(np.uint16))
        with pytest.raises(DataError, match=rf"{path.name}` has no 3 of 1 to 99"):
            prepared(root)
        cv2.imwrite(str(path), ids)
    make(root, ObjectLabels(), image_labels=None, cache_dir=tmp_path / "cache").prepare()  # type: ignore[arg-type]
    assert list((tmp_path / "cache").glob("instances-*.json"))


def test_a_distance_map_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(module, "distance_map", lambda ids: made.append(1) or distance_map(ids))
    data = prepared(write_data(tmp_path / "data"))
    loader = data.train_dataloader()  # type: ignore[attr-defined]
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        assert len(list(loader)) == 4
    assert len(made) == 4


def test_the_draw_of_the_objects_stays_what_it_was(tmp_path: Path) -> None:
    """Runs of two commits are compared: which objects count follows from seed, picture and id as ever."""
    data = prepared(write_data(tmp_path / "data"), annotated_fraction=0.3)
    record = next(record for record in data.prepared.catalogue.records if record.id in data.prepared.parts["train"])  # type: ignore[attr-defined]
    for number in range(1, 17):
        digest = hashlib.sha256(f"0/{record.id}/{number}".encode()).digest()
        assert record.mask.source.annotated(number) == (int.from_bytes(digest[:8], "big") < 0.3 * 2**64)


def test_weak_labels_of_colours_and_of_another_ignored_value(tmp_path: Path) -> None:
    plain = training(prepared(write_data(tmp_path / "plain"), annotated_fraction=0.5))
    colours = write_data(tmp_path / "colours")
    (colours / "dataset.yaml").write_text(
        "classes: [background, nucleus]\npalette: {background: [0, 0, 0], nucleus: [255, 0, 0], ignore: [0, 0, 255]}\n"
    )
    ninety = write_data(tmp_path / "ninety")
    (ninety / "dataset.yaml").write_text("classes: [background, nucleus]\nignore_index: 90\n")
    for path in (colours / "masks").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.stack([255 * (mask == 255), 0 * mask, 255 * (mask == 1)], axis=-1).astype(np.uint8))
        cv2.imwrite(str(ninety / "masks" / path.name), np.where(mask == 255, 90, mask).astype(np.uint8))
    for root in (colours, ninety):
        found = training(prepared(root, annotated_fraction=0.5))
        assert all(torch.equal(found[name]["mask"], entry["mask"]) for name, entry in plain.items())
    assert any((entry["mask"] == 255).any() for entry in plain.values())


def test_what_a_mask_is_decoded_with_is_in_the_stamp(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    stamps = set()
    for text in ("ignore_index: 255", "ignore_index: 90", "palette: {background: [0, 0, 0], nucleus: [255, 0, 0]}"):
        (root / "dataset.yaml").write_text(f"classes: [background, nucleus]\n{text}\n")
        how = Decoding.of(read_folder(root))
        files = (FileSource(root / f"{folder}/p0.png") for folder in ("masks", "instances"))
        stamps.add(AnnotatedObjects(*files, "p0", 0.5, 0, how).stamp())
    assert len(stamps) == 3


def brute_force(instances: np.ndarray) -> np.ndarray:
    """Of every pixel the distance to each pixel of the padded picture that is not of its object."""
    padded = np.pad(instances, 1)
    depth = np.zeros(instances.shape)
    for y, x in np.ndindex(instances.shape):
        others = [
            math.dist((y + 1, x + 1), place) for place in np.ndindex(padded.shape) if padded[place] != instances[y, x]
        ]
        depth[y, x] = min(others) if instances[y, x] else 0
    for name in set(instances[instances > 0].tolist()):
        depth[instances == name] /= depth[instances == name].max()
    return depth


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 3, 3, 7])))
def test_equal_to_brute_force(noise: np.ndarray) -> None:
    instances = np.kron(noise, np.ones((2, 2), np.int64))
    found = distance_map(instances)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(instances), rtol=1e-6)


def test_objects_that_touch_are_apart() -> None:
    instances = np.repeat([[1] * 5 + [2] * 5], 5, axis=0)
    found = distance_map(instances)
    assert found[2].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3] * 2)


def test_no_object_and_only_objects() -> None:
    assert not distance_map(np.zeros((3, 4), np.uint8)).any()
    assert distance_map(np.full((3, 3), 255, np.uint8))[1, 1] == 1


def test_ids_may_be_anything() -> None:
    small = np.array([[1, 1, 0, 2, 2]] * 3)
    large = np.array([0, 2**31, 5])[small]
    np.testing.assert_array_equal(distance_map(large), distance_map(small))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2)), np.zeros((1, 2, 2), np.int64), np.zeros((0, 4), np.int64), np.full((2, 2), -1)]
)
def test_no_instance_map(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="integer image"):
        distance_map(wrong)


def record(name: str, **attributes: str) -> Record:
    return Record(name, FileSource(Path(name)), None, None, attributes, None)


RECORDS = (
    record("a", label="rust", rust="1", miner="0"),
    record("b", label="healthy", rust="0", miner="0"),
    record("c", rust="1", miner="1"),
    record("d", label="rust", rust="1"),
)


def test_one_class_per_picture() -> None:
    labels = read_image_labels("label", RECORDS)
    assert labels.classes == ("healthy", "rust")
    assert labels.values.tolist() == [1, 0, -1, 1]
    assert not labels.several
    assert labels.count([0, 1, 2]).tolist() == [1, 1]
    assert labels.count_known([0, 1, 2]).tolist() == [2, 2]


def test_several_classes_per_picture() -> None:
    labels = read_image_labels(["rust", "miner"], RECORDS)
    assert labels.classes == ("rust", "miner")
    assert labels.values[:3].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert labels.values[3, 0] == 1
    assert np.isnan(labels.values[3, 1])
    assert labels.several
    assert labels.count(range(4)).tolist() == [3, 1]
    assert labels.count_known(range(4)).tolist() == [4, 3]


def test_errors_of_image_labels() -> None:
    with pytest.raises(ConfigError, match=r"columns of the data set, \['label', 'miner', 'rust'\]. Found \['site'\]"):
        read_image_labels("site", RECORDS)
    with pytest.raises(ConfigError, match=r"Found \['lable'\]\. Did you mean `label`\?"):
        read_image_labels("lable", RECORDS)
    with pytest.raises(ConfigError, match="Found"):
        read_image_labels([], RECORDS)
    with pytest.raises(DataError, match="at least 2 classes"):
        read_image_labels("label", RECORDS[1:3])
    with pytest.raises(DataError, match="a: label = rust"):
        read_image_labels(["label"], RECORDS)
