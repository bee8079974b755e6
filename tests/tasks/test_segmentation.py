"""The task wires its parts and owns the names of what is logged."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tests.callbacks._inputs import fitted
from tests.conftest import points
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from hsl.batch import IGNORE_INDEX, Batch, Objectives, Outputs
from hsl.errors import ConfigError, NonFiniteLogitsError
from hsl.heads import Head, Problem
from hsl.inference.predictor import Whole
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.tta import TestTimeAugmentation
from hsl.losses import protocols
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.tasks.scoring import NonFiniteLossError
from hsl.tasks.segmentation import SegmentationTask
from hsl.weighting.scalar import Fixed


class Network(nn.Module):
    """The first two channels of the picture, scaled, are the logits of every head."""

    def __init__(self, class_heads: Any, **_: Any) -> None:
        super().__init__()
        self.known_heads = {head.name: head for head in class_heads}
        self.stride = 1
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, share: Any = None) -> Outputs:
        (features,) = share([images]) if share else [images]
        return dict.fromkeys(self.known_heads, self.scale * features[:, :2])


class Loss(nn.Module, protocols.Loss):
    """Two objectives that are easily worked out."""

    weights = {"mean": 0.5, "size": 2.0}  # noqa: RUF012
    primary = ("damage", "material")

    def __init__(self, class_counts: Any, presence_pixels: Any) -> None:
        super().__init__()

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        logits = next(iter(outputs.values()))
        return {"mean": logits.mean(), "size": logits.square().mean()}


class Task(SegmentationTask):
    """Keeps what it logs instead of handing it to a trainer."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.logged: dict[str, float] = {}
        self.batch_sizes: set[int | None] = set()

    def log(self, name: str, value: Any, *args: Any, **more: Any) -> None:
        self.logged[name] = float(value)

    def log_dict(self, dictionary: Any, *args: Any, batch_size: int | None = None, **more: Any) -> None:
        self.logged |= {name: float(value) for name, value in dictionary.items()}
        self.batch_sizes.add(batch_size)


def task_of(*heads: str, fuse: Any = None) -> Task:
    heads = heads or ("segmentation",)
    scored = [*heads, "segmentation"] if fuse else heads
    counts = {head: torch.tensor([1, 1]) for head in heads}
    problem = Problem(tuple(Head(name, "dense", ("clean", "crack")) for name in scored), counts, counts, fuse)
    return Task(
        network=Network,
        loss=Loss,
        weighting=Fixed,
        optimizer=lambda module: SGD(module.parameters(), lr=0.5),
        scheduler=lambda optimizer, total_steps, steps_per_epoch: LambdaLR(
            optimizer, lambda step: 1 - step / (total_steps * steps_per_epoch)
        ),
        predictor=lambda network, images: network(images),
        metrics={"pixelwise": Pixelwise},
        problem=problem,
    )


def batch_of(predictions: list[list[int]], **masks: list[list[int]]) -> Batch:
    """Pictures of one row that the network takes for ``predictions``."""
    classes = torch.tensor(predictions)[:, None]
    image = torch.stack([classes == 0, classes == 1, classes < 0], dim=1).float()
    return {
        "id": [f"p{i}" for i in range(len(predictions))],
        "image": image,
        "size": torch.tensor([[1, classes.shape[-1]]] * len(predictions)),
        "masks": {head: torch.tensor(mask)[:, None] for head, mask in masks.items()},
    }


@torch.no_grad()
def validate(task: Task, *batches: Batch) -> None:
    """As the trainer does it."""
    for i, batch in enumerate(batches):
        task.validation_step(batch, i)
    assert not any(name.startswith("val/miou") for name in task.logged)
    task.on_validation_epoch_end()


def test_the_total_is_weights_times_parts() -> None:
    """Logits are 0 and 1 in equal number: both objectives are 1/2, the total is 1/2 * 1/2 + 2 * 1/2."""
    task = task_of()
    total = task.training_step(batch_of([[0, 1], [1, 1]], segmentation=[[0, 1], [1, 1]]), 0)
    assert total.item() == 1.25
    assert task.logged == {"train/loss": 1.25, "train/loss/mean": 0.5, "train/loss/size": 0.5}
    assert task.batch_sizes == {2}
    total.backward()
    assert task.network.scale.grad.item() == 0.5 * 0.5 + 2 * 1.0  # type: ignore[union-attr]


class Totals(lightning.Callback):
    """The total of each batch; the trainer has divided it by the batches of a step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        self.found.append(loss.item() * trainer.accumulate_grad_batches)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [[0], [1], [2], [3], [4], [5]]),
        ({"accumulate_grad_batches": 2}, [[0, 1], [2], [3, 4], [5]]),  # an epoch of three batches ends in a short step
        ({"log_every_n_steps": 3}, [[0], [3]]),
        ({"log_every_n_steps": 0}, []),
    ],
    ids=["plain", "accumulated", "now and then", "never"],
)
def test_every_step_is_a_point_of_the_log(tmp_path: Path, options: dict[str, Any], steps: list[list[int]]) -> None:
    every = options.get("log_every_n_steps", 1)
    totals, logger = Totals(), TensorBoardLogger(tmp_path, name="events", version="")
    settings = {"log_every_n_steps": 1, "callbacks": [totals], "logger": logger, **options}
    _, trainer = fitted(tmp_path, None, **settings)
    logged = points(tmp_path / "events")
    for name in ("loss", "loss/fit", "loss/size") if steps else ():
        assert [step for step, _ in logged[f"train_step/{name}"]] == [every * i for i in range(len(steps))]
    found = [value for _, value in logged.get("train_step/loss", [])]
    assert found == pytest.approx([sum(totals.found[i] for i in step) / len(step) for step in steps])
    assert [len(logged[name]) for name in ("train/loss", "train/loss/fit", "train/loss/size")] == [2, 2, 2]  # epochs
    assert not any(name.startswith("train_step") for name in trainer.callback_metrics)  # nor in history.csv


def test_steps_in_micro_batches_have_the_points_of_whole_ones(tmp_path: Path) -> None:
    found = []
    for name, with_callback in (("whole", False), ("cut", True)):
        logger = TensorBoardLogger(tmp_path, name=name, version="")
        fitted(tmp_path, None, micro_batch=1, with_callback=with_callback, logger=logger, log_every_n_steps=1)
        logged = points(tmp_path / name)
        found.append([value for tag in sorted(logged) if tag.startswith("train_step") for value in logged[tag]])
    assert len(found[0]) == 3 * 6
    assert found[1] == [(step, pytest.approx(value)) for step, value in found[0]]


def test_a_loss_that_is_not_finite_names_objective_and_pictures() -> None:
    batch = batch_of([[0, 1]], segmentation=[[0, 1]])
    batch["image"][0, 0, 0, 0] = 1e38  # its square is not
    with pytest.raises(NonFiniteLossError, match=r"`size = inf` for p0 \(training, epoch 1, step 0\)"):
        task_of().training_step(batch, 0)


PREDICTORS: dict[str, Any] = {
    "none": lambda network, images: network(images),
    "whole": Whole(4),
    "window": SlidingWindow(2, 1, 3, "cpu"),
    "tta": TestTimeAugmentation(Whole(4), "dihedral"),
    "window and tta": TestTimeAugmentation(SlidingWindow(2, 1, 3, "cpu"), ["identity", "rot90"]),
}


def with_a_broken_picture(value: float) -> Batch:
    """Three pictures of two rows; a logit of the second is of this value, that of the class which is not there."""
    batch = batch_of([[0, 0, 0]] * 3, segmentation=[[0, 0, 0]] * 3)
    batch["image"][1, 1, 0, 2] = value
    return batch


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e6])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_logit_that_is_no_number_names_its_picture(value: float, predictor: str) -> None:
    """1e6 is one until the network runs in half precision."""
    task, batch = task_of(), with_a_broken_picture(value)
    task.network = Halved(class_heads=task.problem.heads)
    task.predictor = PREDICTORS[predictor]  # type: ignore[assignment]
    with pytest.raises(NonFiniteLogitsError, match=r"in `segmentation` for p1 \(prediction\)\."):
        task.predict(batch)
    with pytest.raises(NonFiniteLogitsError, match=r"in `segmentation` for p1 \(validation of epoch 1\)\."):
        task.validation_step(batch, 0)
    known = SimpleNamespace(evaluation_parts=["val", "test"])
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(prepared=known))  # type: ignore[assignment]
    task.on_test_batch_start(batch, 0, 1)
    with pytest.raises(NonFiniteLogitsError, match=r"in `segmentation` for p1 \(evaluation of part test\)\."):
        task.test_step(batch, 0, 1)
    assert not any(metric.update_called for metric in task.scoring.dense["segmentation"].values())  # type: ignore[operator, union-attr]


def test_it_is_found_where_the_picture_becomes_smaller() -> None:
    """Each second pixel is left out when the logits are brought to the size of the source."""
    task, batch = task_of(), with_a_broken_picture(float("nan"))
    batch["image"] = batch["image"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    batch["image"][1, 1] = 0
    batch["image"][1, 1, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLogitsError, match="for p1"):
        task.predict(batch)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_training_stops_at_a_logit_that_no_loss_looks_at(value: float) -> None:
    task = task_of()
    task.loss.forward = lambda outputs, batch: {"mean": task.network.scale * 1, "size": task.network.scale * 1}  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLogitsError, match=r"`segmentation` for p1 \(training, epoch 1, step 0\)"):
        task.training_step(with_a_broken_picture(value), 0)


def test_no_head_hides_it_in_the_global_space() -> None:
    task = task_of("damage", "material", fuse=lambda outputs: outputs["damage"])
    task.predictor = lambda network, images: {  # type: ignore[assignment]
        "damage": images[:, :2], "material": images[:, :2] - torch.tensor([0.0, float("inf")])[:, None, None]
    }  # fmt: skip
    with pytest.raises(NonFiniteLogitsError, match=r"`-inf` in `material` for p0, p1 \("):
        task.predict(batch_of([[0, 0], [0, 0]], segmentation=[[0, 0], [0, 0]]))


def test_validation_scores_are_pooled_over_the_batches() -> None:
    """Confusion [[2, 1], [1, 1]]: IoU 2/4 and 1/3. The mean of the batches' own would be another."""
    task = task_of()
    validate(
        task,
        batch_of([[0, 1, 1]], segmentation=[[0, 0, 1]]),
        batch_of([[0, 0, 1]], segmentation=[[0, 1, IGNORE_INDEX]]),
    )
    assert task.logged["val/miou"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert task.logged["val/micro_iou"] == pytest.approx(3 / 7)
    assert task.logged["val/pixel_accuracy"] == pytest.approx(3 / 5)
    assert {"val/loss", "val/loss/mean", "val/loss/size", "val/mean_dice"} <= set(task.logged)
    assert not [name for name in task.logged if name.endswith("/segmentation")]


def test_an_epoch_starts_its_scores_anew() -> None:
    task = task_of()
    for prediction, expected in ((1, 0.0), (0, 1.0)):
        task.logged = {}
        validate(task, batch_of([[prediction]], segmentation=[[0]]))
        assert task.logged["val/miou"] == expected


def test_several_heads_are_logged_each_and_the_fused_one_is_monitored() -> None:
    task = task_of("damage", "material", fuse=lambda outputs: -outputs["damage"])
    assert {*task.network.known_heads} == {"damage", "material"}  # type: ignore[arg-type]
    assert {*task.heads} == {"damage", "material", "segmentation"}
    validate(task, batch_of([[0, 1]], damage=[[0, 1]], material=[[0, 0]], segmentation=[[1, 1]]))
    assert task.logged["val/miou/damage"] == 1.0
    assert task.logged["val/miou/material"] == 0.25  # 1/2 and 0
    assert task.logged["val/miou/segmentation"] == task.logged["val/miou"] == 0.25
    assert task.logged["val/h_mean"] == pytest.approx(2 / (1 / 1.0 + 1 / 0.25))


def test_a_task_that_scores_nothing_takes_the_harmonic_mean_to_zero() -> None:
    task = task_of("damage", "material", fuse=lambda outputs: outputs["damage"])
    validate(task, batch_of([[0, 0]], damage=[[0, 0]], material=[[1, 1]], segmentation=[[0, 0]]))
    assert task.logged["val/h_mean"] == 0.0


def test_the_weighting_is_given_the_shared_features_and_told_of_the_end_of_an_epoch() -> None:
    told: list[Any] = []
    task = task_of()
    task.weighting.share = lambda features: (told.append(len(features)), features)[1]  # type: ignore[assignment]
    task.weighting.end_epoch = lambda: told.append("end")  # type: ignore[assignment]
    task.training_step(batch_of([[0, 1]], segmentation=[[0, 1]]), 0)
    task.on_train_epoch_end()
    assert told == [1, "end"]


def test_predictions_have_the_size_of_the_sources() -> None:
    task = task_of()
    batch = batch_of([[0, 1], [1, 0]], segmentation=[[0, 1], [0, 1]])
    batch["size"] = torch.tensor([[1, 4], [3, 2]])
    logits = task.predict(batch)["segmentation"]
    assert logits.shape == (2, 2, 3, 4)
    assert logits[0, :, 0].tolist() == [[1.0, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 1.0]]
    assert logits[0, :, 1:].abs().sum() == 0
    assert logits[1, 1, :, :2].tolist() == [[1.0, 0.0]] * 3
    torch.testing.assert_close(task.test_step(batch, 0)["plain"]["segmentation"], logits)


def test_another_predictor_is_asked_and_answers_in_float32() -> None:
    seen: list[nn.Module] = []

    def other(network: nn.Module, images: Tensor) -> Outputs:
        seen.append(network)
        return {"segmentation": images[:, :2].half() + 1}

    task = task_of()
    logits = task.predict(batch_of([[0, 1]], segmentation=[[0, 1]]), other)["segmentation"]
    assert seen == [task.network]
    assert logits.dtype == torch.float32
    assert logits[0, :, 0].tolist() == [[2.0, 1.0], [1.0, 2.0]]


def test_a_test_asks_every_predictor_and_none_is_the_tasks_own() -> None:
    task = task_of()
    task.inferences = {"plain": None, "doubled": lambda network, images: {"segmentation": 2 * images[:, :2]}}
    found = task.test_step(batch_of([[0, 1]], segmentation=[[0, 1]]), 0)
    assert list(found) == ["plain", "doubled"]
    assert found["doubled"]["segmentation"].tolist() == (2 * found["plain"]["segmentation"]).tolist()


def test_the_schedule_is_stepped_once_per_optimizer_step() -> None:
    task = task_of()
    task._trainer = SimpleNamespace(  # type: ignore[assignment]
        estimated_stepping_batches=4, num_training_batches=5, accumulate_grad_batches=2
    )
    made = task.configure_optimizers()
    assert made["lr_scheduler"]["interval"] == "step"
    assert [group["lr"] for group in made["optimizer"].param_groups] == [0.5]
    made["optimizer"].step()
    made["lr_scheduler"]["scheduler"].step()
    assert made["optimizer"].param_groups[0]["lr"] == 0.5 * (
        1 - 1 / (4 * 3)
    )  # four steps, three in an epoch of five batches


NAMES = ("clean", "crack", "stain")
SHAPES = {"damage": torch.tensor([0, 1, 1]), "kind": torch.tensor([0, 0, 1])}


class Flat(Network):
    """The three channels of the picture are the logits."""

    def forward(self, images: Tensor, share: Any = None) -> Outputs:
        return dict.fromkeys(self.known_heads, self.scale * images)


class Halved(Network):
    """Answers in half precision."""

    def forward(self, images: Tensor, share: Any = None) -> Outputs:
        return {head: logits.half() for head, logits in super().forward(images, share).items()}


class Branches(Network):
    """What two tasks say where each pixel's class is that of the largest channel."""

    def forward(self, images: Tensor, share: Any = None) -> Outputs:
        return {
            head: torch.nn.functional.one_hot(SHAPES[head][images.argmax(1)], 2).movedim(-1, 1).float()
            for head in self.known_heads
        }


def task_with(network: Any, learned: list[str], primary: Any = "all", **further: Any) -> Task:
    counts = {head: torch.tensor([1, 1, 1]) for head in learned}
    classes = {"damage": ("clean", "damage"), "kind": ("other", "stain"), "segmentation": NAMES}
    heads = tuple(Head(name, "dense", names) for name, names in classes.items())
    task = task_of()
    return Task(
        network=network, loss=Loss, weighting=Fixed, optimizer=task.optimizer, scheduler=task.scheduler,
        predictor=task.predictor, metrics={"pixelwise": Pixelwise},
        problem=Problem(heads, counts, counts, **further), primary=primary,
    )  # fmt: skip


def pixels(predicted: list[int], truth: list[int]) -> Batch:
    """A picture of one row, with the masks of all heads; the probabilities are 0.4, 0.3 and 0.3."""
    image = torch.full((1, 3, 1, len(predicted)), 0.3).log()
    image[0, predicted, 0, range(len(predicted))] = torch.tensor(0.4).log()
    mask = torch.tensor(truth)[None, None]
    masks = {"segmentation": mask, **{head: table[mask] for head, table in SHAPES.items()}}
    return {"id": ["p"], "image": image, "size": torch.tensor([[1, len(predicted)]]), "masks": masks}


def test_a_flat_model_has_the_scores_of_the_tasks_that_read_it() -> None:
    """Damage: [[1, 1], [1, 3]]; kind: [[3, 1], [1, 1]]; the H-mean of their mIoU by hand."""
    batch = pixels([0, 0, 1, 2, 1, 2], [0, 1, 0, 2, 2, 1])
    flat = task_with(Flat, ["segmentation"], readings=SHAPES)
    validate(flat, batch)
    damage, kind = (1 / 3 + 3 / 5) / 2, (3 / 5 + 1 / 3) / 2
    assert flat.logged["val/miou/damage"] == pytest.approx(damage)
    assert flat.logged["val/miou/kind"] == pytest.approx(kind)
    assert flat.logged["val/h_mean"] == pytest.approx(2 / (1 / damage + 1 / kind))
    assert flat.logged["val/miou"] == flat.logged["val/miou/segmentation"]
    several = task_with(Branches, ["damage", "kind"], fuse=lambda outputs: batch["image"])
    validate(several, batch)
    shared = {"val/miou", "val/miou/damage", "val/miou/kind", "val/pixel_accuracy/damage", "val/h_mean"}
    assert {name: flat.logged[name] for name in shared} == {name: several.logged[name] for name in shared}


def test_the_primary_tasks_of_a_flat_model_can_be_chosen() -> None:
    batch = pixels([0, 1, 2], [0, 0, 2])
    flat = task_with(Flat, ["segmentation"], readings=SHAPES, primary=["kind"])
    validate(flat, batch)
    assert flat.logged["val/h_mean"] == flat.logged["val/miou/kind"] == 1.0
    with pytest.raises(ConfigError, match=r"`task.primary` should be all or tasks of \['damage', 'kind'\]. Found .*x"):
        task_with(Flat, ["segmentation"], readings=SHAPES, primary=["x"])
    with pytest.raises(ConfigError, match=r"Found `task.primary = \['damage'\]`. Set `loss.primary` instead."):
        task_with(Branches, ["damage", "kind"], fuse=lambda outputs: batch["image"], primary=["damage"])
