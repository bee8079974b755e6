from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.data.test_labels import make

from hsl.config import ConfigError, DataError
from hsl.data.decode import decode_mask
from hsl.data.distance_maps import distance_map
from hsl.data.formats.folder import read_folder
from hsl.data.object_labels import ObjectLabels, read_instances
from hsl.data.records import FileSource


def write_data(root: Path, classes: str = "[background, nucleus]") -> Path:
    """Eight pictures with sixteen square objects each; a corner of every mask is ignored."""
    for folder in ("images", "masks", "instances"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = np.zeros((32, 32), np.uint16)
    for i in range(16):
        y, x = divmod(i, 4)
        ids[8 * y + 1 : 8 * y + 6, 8 * x + 1 : 8 * x + 6] = i + 1
    mask = (ids > 0).astype(np.uint8)
    mask[:1, :1] = 255
    for i in range(8):
        cv2.imwrite(str(root / f"images/p{i}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        cv2.imwrite(str(root / f"masks/p{i}.png"), mask)
        cv2.imwrite(str(root / f"instances/p{i}.png"), ids)
    (root / "dataset.yaml").write_text(f"classes: {classes}\n")
    return root


def prepared(root: Path, **settings: float) -> object:
    data = make(root, ObjectLabels(**settings), image_labels=None, image_size=32)  # type: ignore[arg-type]
    data.prepare()
    return data


def training(data: object) -> dict[str, dict[str, torch.Tensor]]:
    seen = {}
    for batch in data.train_dataloader():  # type: ignore[attr-defined]
        raw = batch["image"].clone()
        done = data.on_after_batch_transfer(batch, 0)  # type: ignore[attr-defined]
        torch.testing.assert_close(done["targets"]["reconstruction"], raw.float() / 255, atol=1e-6, rtol=0)
        entry = {"mask": done["masks"]["segmentation"][0], "hv": done["targets"]["hv"][0]}
        seen[batch["id"][0]] = entry | {key: one["segmentation"][0] for key, one in done.items() if key == "unlabelled"}
    return seen


def test_all_objects_annotated(tmp_path: Path) -> None:
    data = prepared(write_data(tmp_path / "data"))
    expected = distance_map(read_instances(FileSource(tmp_path / "data/instances/p0.png")))
    for entry in training(data).values():
        assert (entry["mask"] == 1).sum() == 16 * 25
        assert "unlabelled" not in entry
        np.testing.assert_allclose(entry["hv"].numpy(), expected, atol=1 / 255)


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
    for record in data.catalogue.records:  # type: ignore[attr-defined]
        whole = (decode_mask(record.mask.read(), record.id, None, 255) == 1).sum() == 400
        assert whole or record.id in data.parts["train"]  # type: ignore[attr-defined]


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
    with pytest.raises(DataError, match=r"should hold an object"):
        read_instances(FileSource(root / "instances/p0.png"))
    for path in (root / "instances").iterdir():
        path.unlink()
    (root / "instances").rmdir()
    with pytest.raises(DataError, match="map of instance ids"):
        make(root, ObjectLabels(), image_labels=None, reader=partial(read_folder)).prepare()  # type: ignore[arg-type]
