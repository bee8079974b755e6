"""What a run would find out late is told before there is a run folder."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from hsl.callbacks.oom_backoff import OomBackoff
from hsl.data.datamodule import DataModule
from hsl.data.loading.sampling import class_counts
from hsl.errors import ConfigError, DataError
from hsl.tasks.rehearsal import logged_values
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.opening.building import build_task
from hsl.verbs.train.preview import check_batch_norm, check_batches, check_monitored, check_parts
from hsl.verbs.train.setup import check_training

Make = Callable[..., DictConfig]
Prepared = tuple[DictConfig, DataModule, SegmentationTask]
SMALL = ("encoder=mobilenetv3_small", "data.image_size=32", "loss.class_weights=null")


@pytest.fixture(scope="module")
def prepared(module_tiny: Make) -> Prepared:
    return prepare(module_tiny(*SMALL))


@pytest.fixture(scope="module")
def dual(module_tiny: Make) -> Prepared:
    return prepare(module_tiny(*SMALL, "task=dual_head", "loss=dual_head", "data.image_labels=label"))


def prepare(cfg: DictConfig) -> Prepared:
    data: DataModule = instantiate(cfg.data)
    data.prepare()
    return cfg, data, build_task(cfg, data.prepared)


@pytest.fixture
def ignore(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes every mask, or label, of a part one that does not count."""

    def blind(data: DataModule, part: str, masks: bool = True, labels: bool = False) -> None:
        known = data.prepared
        rows, counts = known.scan.rows(known.parts[part]), known.scan.class_counts.copy()
        if masks:
            counts[rows, 255] += counts[rows, :255].sum(1)
            counts[rows, :255] = 0
        known = replace(known, scan=replace(known.scan, class_counts=counts))
        if labels and known.image_labels is not None:
            values = known.image_labels.values.copy()
            values[rows] = -1
            known = replace(known, image_labels=replace(known.image_labels, values=values))
        monkeypatch.setattr(data, "prepared", known)

    return blind


def test_a_good_run_passes_and_draws_no_random_number(prepared: Prepared) -> None:
    state = torch.get_rng_state()
    check_training(*prepared)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_part_without_a_pixel_that_counts(prepared: Prepared, ignore: Callable[..., None], part: str) -> None:
    _, data, task = prepared
    ignore(data, part)
    number = len(data.prepared.parts[part])
    with pytest.raises(DataError, match=rf"The {part} part .*fold 0.*Found none in {number} pictures"):
        check_parts(data.prepared, task)


def test_with_two_heads_one_may_be_without_annotations_where_it_is_not_trained(
    dual: Prepared, ignore: Callable[..., None]
) -> None:
    cfg, data, task = dual
    ignore(data, "val")
    check_parts(data.prepared, task)  # its labels are still scored
    with pytest.raises(
        ConfigError, match=r"`monitor = val/miou`, which is no number even where .* such as val/accuracy"
    ):
        check_monitored(cfg, data.prepared, task, [])
    cfg = cfg.copy()
    cfg.monitor = "val/accuracy"
    check_monitored(cfg, data.prepared, task, [])
    ignore(data, "val", labels=True)
    with pytest.raises(DataError, match=r"The val part .* a pixel of a mask or a label that counts"):
        check_parts(data.prepared, task)


@pytest.mark.parametrize(("masks", "labels", "head"), [(True, False, "segmentation"), (False, True, "classification")])
def test_a_head_that_nothing_teaches(
    dual: Prepared, ignore: Callable[..., None], masks: bool, labels: bool, head: str
) -> None:
    _, data, task = dual
    ignore(data, "train", masks, labels)
    with pytest.raises(DataError, match=rf"The train part .* for the head {head}"):
        check_parts(data.prepared, task)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"limit_train_batches": 0.01}, "`trainer.limit_train_batches` should leave a batch of the "),
        ({"limit_val_batches": 0.01}, "`trainer.limit_val_batches` should leave a batch of the "),
        ({"max_steps": 1}, "the steps up to the first validation"),
        ({"max_steps": 3, "check_val_every_n_epoch": 2, "limit_train_batches": 2}, "should be at least 4, the"),
        ({"max_steps": 1, "limit_train_batches": 3, "accumulate_grad_batches": 2}, "should be at least 2"),
    ],
)  # fmt: skip
def test_limits_that_leave_nothing(prepared: Prepared, trainer: dict[str, Any], said: str) -> None:
    cfg, data, _ = prepared
    cfg = cfg.copy()
    cfg.trainer = {**cfg.trainer, **trainer}
    with pytest.raises(ConfigError) as caught:
        check_batches(cfg, data)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "trainer", [{"limit_train_batches": 0.5}, {"max_steps": 1, "limit_train_batches": 1}, {"max_steps": 100}, {}]
)
def test_limits_that_leave_something(prepared: Prepared, trainer: dict[str, Any]) -> None:
    cfg, data, _ = prepared
    cfg = cfg.copy()
    cfg.trainer = {**cfg.trainer, **trainer}
    check_batches(cfg, data)


@pytest.mark.parametrize(
    ("key", "value", "world_size", "advice"),
    [
        ("batch_size", 1, 1, "`data.batch_size = 1`. Raise it to 2"),
        ("batch_size", 4, 4, "`data.batch_size = 4`. Raise it to 8"),
        ("micro_batch", 1, 1, "`callbacks.slices.micro_batch = 1`. Raise it to 2"),
        ("parts", 1, 1, "too few pictures in the training part"),
    ],
)
def test_batch_norm_over_a_single_pixel(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, key: str, value: int, world_size: int, advice: str
) -> None:
    cfg, data, task = prepared
    cfg, callbacks = cfg.copy(), {}
    if key == "batch_size":
        cfg.data.batch_size = value
    elif key == "micro_batch":
        callbacks = {"slices": OomBackoff("oom.json", value)}
    else:
        monkeypatch.setitem(data.prepared.parts, "train", data.prepared.parts["train"][:value])
    with pytest.raises(ConfigError) as caught:
        check_batch_norm(cfg, data, task.network, world_size, callbacks)
    assert "`data.image_size = 32`" in str(caught.value)
    assert advice in str(caught.value)
    cfg.data.image_size = 64  # maps of 2 x 2 pixels
    check_batch_norm(cfg, data, task.network, world_size, callbacks)


def test_two_pictures_a_step_cost_no_look(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, data, task = prepared
    monkeypatch.setattr(task.network, "forward", lambda *_: pytest.fail("called"))
    check_batch_norm(cfg, data, task.network, 1, {})


def test_the_h_mean_of_a_flat_model_that_tasks_read_is_a_value(module_tiny: Make) -> None:
    """Where every prediction is right every task has a score of 1, and so has their H-mean."""
    cfg, data, task = prepare(module_tiny(*SMALL, "data.tasks=demo", "monitor=val/h_mean"))
    check_training(cfg, data, task)
    pixels = class_counts(data.prepared.heads, data.prepared.scan, data.prepared.parts["val"], None)
    pixels = {head: torch.from_numpy(counts) for head, counts in pixels.items()}
    values = logged_values(task, pixels, {})
    scored = ("val/h_mean", "val/miou", "val/miou/damage", "val/miou/shape", "val/miou/kind")
    assert [values[name] for name in scored] == [1.0] * 5
