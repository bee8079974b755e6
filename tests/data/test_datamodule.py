from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from hsl.config.calls import check_calls
from hsl.data.arguments import check_arguments
from hsl.data.audit.audit import audit
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.formats.folder import read_folder, read_pictures
from hsl.data.loading.sampling import RareClasses, Weighted
from hsl.data.loading.transforms import training_transform
from hsl.data.splits.folds import kfold
from hsl.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 with torch 2.15
NUM_PICTURES = 12
CLASSES = ("clean", "crack", "stain")
AUGMENTATION: dict[str, Any] = {
    "flips": {"horizontal": 0.5, "vertical": 0.5},
    "rot90": None,
    "resized_crop": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25]},
    "rotation": None,
    "colour": None,
    "blur": None,
}
GOOD = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures of unlike sizes in six groups; every picture has all classes and ignored pixels."""
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["id,group"]
    for number in range(NUM_PICTURES):
        height, width = 40 + number, 52 - number
        mask = np.zeros((height, width), np.uint8)
        mask[: 4 + number, :10] = 1
        mask[-5:, :] = 2
        mask[:3, -3:] = 255
        image = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"images/p{number:02}.png"), image)
        cv2.imwrite(str(folder / f"masks/p{number:02}.png"), mask)
        rows.append(f"p{number:02},g{number // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "dataset.yaml").write_text("classes: [clean, crack, stain]\n")
    return folder


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Callable[..., DataModule]:
    def make(**changed: Any) -> DataModule:
        split = partial(
            kfold,
            num_folds=3,
            groups="group",
            stratify=None,
            test_from="fraction",
            test_fraction=0.2,
            seed=0,
        )
        given: dict[str, Any] = {
            "root": root,
            "reader": read_folder,
            "split": split,
            "fold": 0,
            "image_size": 32,
            "batch_size": 2,
            "num_workers": 0,
            "cache": "ram",
            "cache_gigabytes": 1.0,
            "cache_dir": tmp_path / "cache",
            "audit": partial(audit, missing_classes="warn"),
            "augmentation": partial(training_transform, **AUGMENTATION),
            "normalization": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]},
            "seed": 3,
        }
        return DataModule(**(given | changed))

    return make


class Recorder(lightning.LightningModule):
    """A model whose weight depends on every pixel that it has seen, in order."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)
        self.seen: list[tuple[int, list[str]]] = []
        self.fail_at = fail_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append((self.current_epoch, batch["id"]))
        return self.layer(batch["image"]).square().mean() + batch["masks"]["segmentation"].float().mean() * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Save(Callback):
    """Saves when and where it is told."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.step, self.path = step, path
        setattr(self, hook, self._save)

    def _save(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking and not self.path.exists():
            trainer.save_checkpoint(self.path)


def fit(
    data: DataModule, model: Recorder, *callbacks: Callback, resume: Path | None = None, **options: Any
) -> Recorder:
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=3,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=False)
    return model


@pytest.fixture
def data(make: Callable[..., DataModule]) -> DataModule:
    data = make()
    data.prepare()
    return data


def truth(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    image = cv2.imread(str(root / f"images/{name}.png"))[..., ::-1]
    return image, cv2.imread(str(root / f"masks/{name}.png"), cv2.IMREAD_UNCHANGED)


def test_prepare_makes_everything_once(data: DataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data.prepared.classes == {"segmentation": CLASSES}
    assert sorted(name for part in data.prepared.parts.values() for name in part) == [
        f"p{number:02}" for number in range(NUM_PICTURES)
    ]
    assert data.prepared.parts["train"] == data.prepared.fold_assignment.fold(0).train
    assert not data.prepared.audit.stopped
    catalogue = data.prepared.catalogue
    data.prepare()
    assert data.prepared.catalogue is catalogue


def test_class_counts_are_those_of_the_training_part(data: DataModule, root: Path) -> None:
    counts = np.zeros(256, np.int64)
    for name in data.prepared.parts["train"]:
        counts += np.bincount(truth(root, name)[1].ravel(), minlength=256)
    assert counts[255] > 0
    assert data.prepared.class_counts["segmentation"].tolist() == counts[:3].tolist()
    assert data.prepared.class_counts["segmentation"].dtype == np.int64


def test_what_was_prepared_is_one_frozen_value(data: DataModule) -> None:
    assert data.prepared is data.prepared
    with pytest.raises(FrozenInstanceError):
        data.prepared.fold = 1  # type: ignore[misc]


def test_settings_are_checked_as_if_they_were_arguments(make: Callable[..., DataModule], root: Path) -> None:
    node = {"_target_": "hsl.data.datamodule.DataModule", "root": str(root), "fold": 0, "batch_size": "x", "colour": 1}
    with pytest.raises(ConfigError) as error:
        check_calls({"data": node})
    for found in ("`data.batch_size = x`", "`data.colour` should be a key of `data`", "Add `+data.image_size=...`"):
        assert found in str(error.value)
    with pytest.raises(TypeError, match="colour"):
        make(colour=1)


def test_audit_stops_the_run_and_can_be_read(make: Callable[..., DataModule], root: Path) -> None:
    cv2.imwrite(str(root / "masks/p03.png"), np.full((43, 49), 7, np.uint8))
    data = make()
    with pytest.raises(DataError, match=r"masks/p03\.png"):
        data.prepare()
    assert data.prepared.audit.stopped


def test_training_batches(data: DataModule) -> None:
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == len(data.prepared.parts["train"]) // 2
    for batch in batches:
        assert batch["image"].shape == (2, 3, 32, 32)
        assert batch["image"].dtype == batch["masks"]["segmentation"].dtype == torch.uint8
        assert batch["masks"]["segmentation"].shape == (2, 32, 32)
        assert set(batch["id"]) <= set(data.prepared.parts["train"])
    ids = [name for batch in batches for name in batch["id"]]
    assert len(set(ids)) == len(ids)
    assert ids != sorted(ids)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_evaluation_batches(data: DataModule, root: Path, part: str) -> None:
    ids = []
    for batch in data.val_dataloader() if part == "val" else data.part_dataloader(part):
        assert batch["image"].shape[1:] == (3, 32, 32)
        for name, mask, size in zip(batch["id"], batch["masks"]["segmentation"], batch["size"], strict=True):
            image, expected = truth(root, name)
            assert size.tolist() == [*image.shape[:2]]
            np.testing.assert_array_equal(mask[: size[0], : size[1]], expected)
            assert (mask[size[0] :] == 255).all()
            assert (mask[:, size[1] :] == 255).all()
            ids.append(name)
    assert ids == list(data.prepared.parts[part])


def test_original(data: DataModule, root: Path) -> None:
    for name in ("p00", "p07"):
        image, mask = data.original(name)
        np.testing.assert_array_equal(image, truth(root, name)[0])
        np.testing.assert_array_equal(mask, truth(root, name)[1])


def test_batch_is_normalised_on_the_device(data: DataModule) -> None:
    batch = next(iter(data.train_dataloader()))
    result = data.on_after_batch_transfer(batch, 0)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.5])
    expected = (batch["image"].numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(result["image"], expected, rtol=1e-4, atol=1e-5)
    assert result["image"].dtype == torch.float32
    assert result["masks"]["segmentation"].dtype == torch.int64


def test_height_and_width(make: Callable[..., DataModule]) -> None:
    data = make(image_size=[24, 40])
    data.prepare()
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 3, 24, 40)
    assert next(iter(data.val_dataloader()))["image"].shape == (2, 3, 24, 40)


@pytest.mark.parametrize("cache", ["ram", "disk", None])
def test_caches_give_the_same(make: Callable[..., DataModule], data: DataModule, cache: str | None) -> None:
    other = make(cache=cache)
    other.prepare()
    for one, two in zip(data.train_dataloader(), other.train_dataloader(), strict=True):
        assert one["id"] == two["id"]
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["masks"]["segmentation"], two["masks"]["segmentation"])


def test_prediction_needs_no_data_set(make: Callable[..., DataModule], root: Path) -> None:
    (root / "images/p01.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    data = make(root="nowhere")
    broken: list[str] = []
    loader = data.predict_dataloader(
        read_pictures(root / "images")[0], Decoding(), on_broken=lambda error: broken.append(str(error))
    )
    batches = list(loader)
    assert [name for batch in batches for name in batch["id"]] == [
        f"p{number:02}" for number in range(NUM_PICTURES) if number != 1
    ]
    assert all("masks" not in batch for batch in batches)
    assert batches[1]["size"].tolist() == [[42, 50], [43, 49]]
    (message,) = broken
    assert "images/p01.png" in message
    with pytest.raises(DataError, match=r"p01\.png"):
        list(data.predict_dataloader(read_pictures(root / "images")[0], Decoding()))


def test_empty_part(make: Callable[..., DataModule]) -> None:
    split = partial(kfold, num_folds=3, groups=None, stratify=None, test_from="fraction", test_fraction=0.0, seed=0)
    data = make(split=split)
    data.prepare()
    with pytest.raises(DataError, match=r"The test part of .*, fold 0, should hold pictures\. Found none"):
        data.part_dataloader("test")
    assert data.prepared.evaluation_parts == ("val",)
    assert set(data.prepared.pixels_per_part()) == {"train", "val"}


def test_scored_parts(data: DataModule, root: Path) -> None:
    assert data.prepared.evaluation_parts == ("val", "test")
    loaders = data.test_dataloader()
    assert [[name for batch in loader for name in batch["id"]] for loader in loaders] == [
        list(data.prepared.parts["val"]),
        list(data.prepared.parts["test"]),
    ]
    masks = [truth(root, name)[1] for name in data.prepared.parts["test"]]
    counts = [sum(int((mask == number).sum()) for mask in masks) for number in range(3)]
    assert data.prepared.pixels_per_part()["test"].tolist() == counts


def test_group(make: Callable[..., DataModule], data: DataModule) -> None:
    assert data.prepared.group("p05") == "g2"
    split = partial(kfold, num_folds=3, groups=None, stratify=None, test_from="fraction", test_fraction=0.0, seed=0)
    alone = make(split=split)
    alone.prepare()
    assert alone.prepared.group("p05") == "p05"


def test_all_wrong_settings_at_once(make: Callable[..., DataModule]) -> None:
    with pytest.raises(ConfigError) as error:
        make(image_size=0, batch_size=0, num_workers="many", normalization={"mean": [0.5], "std": [1, 1, 1]})
    for found in (
        "Found `data.image_size = 0`.",
        "Found `data.batch_size = 0`.",
        "Found `data.num_workers = many`.",
        "`encoder.normalization.mean` should have 3 values. Found [0.5].",
    ):
        assert found in str(error.value)


@pytest.mark.parametrize("size", [[], [1, 2, 3], [32, 0], -4])
def test_wrong_image_size(make: Callable[..., DataModule], size: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size"):
        make(image_size=size)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cache": "tape"}, r"`data\.cache` should be ram, disk or null"),
        ({"cache": "disk", "cache_dir": None}, r"`data\.cache_dir`"),
        ({"fold": 3}, r"`fold` should be in \[0, 3\)\. Found `fold = 3`"),
    ],
)
def test_wrong_settings(make: Callable[..., DataModule], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changed).prepare()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_end", 2),
        ("on_train_batch_end", 3),
        ("on_train_batch_end", 4),
        ("on_train_batch_start", 4),  # the fifth batch is handed out, its step not done
        ("on_validation_end", 3),
        ("on_train_epoch_end", 3),
    ],
)
def test_resumed_training_is_the_uninterrupted_one(
    make: Callable[..., DataModule], tmp_path: Path, hook: str, step: int, num_workers: int
) -> None:
    path = tmp_path / "saved.ckpt"
    torch.manual_seed(0)
    first = make(num_workers=num_workers)
    first.prepare()
    whole = fit(first, Recorder(), Save(hook, step, path))
    assert len(whole.seen) == 9
    second = make(num_workers=num_workers)
    second.prepare()
    resumed = fit(second, Recorder(), resume=path)
    assert resumed.seen == whole.seen[step:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_resumed_after_an_error_in_the_step(make: Callable[..., DataModule], tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    torch.manual_seed(0)
    model = Recorder()
    first = make()
    first.prepare()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    whole = fit(first, model)
    stopped = Recorder(fail_at=4)
    stopped.load_state_dict(start)
    with pytest.raises(SystemExit):
        fit(first, stopped, Save("on_exception", 4, path))
    second = make()
    second.prepare()
    resumed = fit(second, Recorder(), resume=path)
    assert stopped.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_workers_end_with_the_training(make: Callable[..., DataModule]) -> None:
    data = make(num_workers=1)
    data.prepare()
    before = set(torch.multiprocessing.active_children())
    fit(data, Recorder())
    assert set(torch.multiprocessing.active_children()) <= before


def test_tasks_give_each_head_its_mask_and_its_counts(make: Callable[..., DataModule], tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("damage: {groups: {any: [crack, stain]}}\nstained: {ids: [stain]}\n")
    data, flat = make(tasks=tasks), make()
    data.prepare()
    flat.prepare()
    assert data.prepared.classes == {"damage": ("clean", "any"), "stained": ("other", "stain"), "segmentation": CLASSES}
    source = flat.prepared.class_counts["segmentation"]
    assert data.prepared.class_counts["damage"].tolist() == [source[0], source[1] + source[2]]
    assert data.prepared.class_counts["stained"].tolist() == [source[0] + source[1], source[2]]
    assert np.array_equal(data.prepared.class_counts["segmentation"], source)
    assert np.array_equal(data.prepared.presence_pixels["segmentation"], flat.prepared.presence_pixels["segmentation"])
    assert data.prepared.pixels_per_part()["val"].tolist() == flat.prepared.pixels_per_part()["val"].tolist()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    masks = batch["masks"]
    assert masks.keys() == {"damage", "stained", "segmentation"}
    assert masks["segmentation"].max() <= 255
    valid = masks["segmentation"] != 255
    assert torch.equal(masks["damage"][valid], (masks["segmentation"] > 0)[valid].long())
    assert torch.equal(masks["stained"][valid], (masks["segmentation"] == 2)[valid].long())
    assert (masks["stained"][~valid] == 255).all()


def test_a_bad_task_definition_is_found_when_the_data_are_inspected(
    make: Callable[..., DataModule], tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("damage: {ids: [rust]}\n")
    with pytest.raises(ConfigError, match="Found `rust`"):
        _ = make(tasks=tasks).prepared


def test_evaluation_at_the_size_of_the_source(make: Callable[..., DataModule], root: Path) -> None:
    data = make(evaluation_size="source", batch_size=4)
    data.prepare()
    seen = []
    for batch in data.val_dataloader():
        for name, image, size in zip(batch["id"], batch["image"], batch["size"].tolist(), strict=True):
            assert list(image.shape[1:]) == size
            np.testing.assert_array_equal(
                image.permute(1, 2, 0), cv2.imread(str(root / f"images/{name}.png"))[..., ::-1]
            )
            seen.append(name)
    assert sorted(seen) == sorted(data.prepared.parts["val"])
    assert next(iter(data.train_dataloader()))["image"].shape[2:] == (32, 32)
    records = read_pictures(root / "images")[0]
    assert [len(batch["id"]) for batch in data.predict_dataloader(records, Decoding())] == [1] * NUM_PICTURES


def test_evaluation_size_is_one_of_two(make: Callable[..., DataModule]) -> None:
    with pytest.raises(ConfigError, match=r"image_size or source. Found `data.evaluation_size = window`"):
        make(evaluation_size="window")


def test_rare_classes_are_drawn_more_often_and_augmented_anew(make: Callable[..., DataModule], root: Path) -> None:
    for number in range(4, NUM_PICTURES):  # class 2 stays in two groups, one of them may be held out
        path = root / f"masks/p{number:02}.png"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[mask == 2] = 0
        cv2.imwrite(str(path), mask)
    data = make(sampling=RareClasses())
    data.prepare()
    loader, seen = data.train_dataloader(), []
    for epoch in range(100):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            seen += [
                (epoch, name, image.numpy().tobytes()) for name, image in zip(batch["id"], batch["image"], strict=True)
            ]
    train = data.prepared.parts["train"]
    rare = [name for name in train if name <= "p03"]
    factor = (len(train) / len(rare)) ** 0.5
    expected = len(rare) * factor / (len(rare) * factor + len(train) - len(rare))
    assert np.mean([name in rare for _, name, _ in seen]) == pytest.approx(expected, abs=0.06)
    assert len({(epoch, name) for epoch, name, _ in seen}) < len(seen)
    assert len({(epoch, image) for epoch, _, image in seen}) == len(seen)


def test_a_list_of_pictures_trains_alone(make: Callable[..., DataModule], tmp_path: Path) -> None:
    plain = make()
    plain.prepare()
    train, table = plain.prepared.parts["train"], tmp_path / "weights.csv"
    table.write_text(f"id\n{train[0]}\n{train[-1]}\n")
    data = make(sampling=Weighted(str(table)))
    data.prepare()
    loader = data.train_dataloader()
    assert {name for batch in loader for name in batch["id"]} == {train[0], train[-1]}
    assert len(loader) == len(plain.train_dataloader())  # an epoch keeps its length


def test_a_class_that_no_picture_is_drawn_of_is_said(
    make: Callable[..., DataModule], root: Path, tmp_path: Path
) -> None:
    for number in range(NUM_PICTURES):
        if number % 2:
            path = root / f"masks/p{number:02}.png"
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), np.where(mask == 2, 0, mask))
    data, table = make(sampling=Weighted(str(tmp_path / "weights.csv"))), tmp_path / "weights.csv"
    data.prepare()
    train = data.prepared.parts["train"]
    table.write_text("id,weight\n" + "".join(f"{name},{int(name[1:]) % 2}\n" for name in train))
    with pytest.warns(UserWarning, match=r"draws no training picture of stain\.$"):
        data.train_dataloader()


def test_only_some_pictures(make: Callable[..., DataModule]) -> None:
    whole, some = make(), make(only={"group": ["g0", "g2", "g3", "g4", "g5"]})
    for data in (whole, some):
        data.prepare()
    names = [record.id for record in some.prepared.catalogue.records]
    assert sorted(name for part in some.prepared.parts.values() for name in part) == names
    assert len(names) == NUM_PICTURES - 2
    assert not {"p02", "p03"} & set(names)
    assert some.prepared.fold_assignment.sha256 != whole.prepared.fold_assignment.sha256


@pytest.mark.parametrize(("size", "workers"), [(32, 0), ([32, 64], "auto"), (1, 3)])
def test_what_fits(size: int | list[int], workers: int | str) -> None:
    check_arguments(size, 1, workers, GOOD)


def test_all_findings_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        check_arguments([0, 1], 0, "many", {"mean": [0.5], "std": [0.2, 0.2, 0.2]})
    for name in ("image_size", "batch_size", "num_workers", "normalization.mean"):
        assert name in str(error.value)
    assert "normalization.std" not in str(error.value)
