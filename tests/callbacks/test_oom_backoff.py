"""A run in which memory runs out gives what the undisturbed run gives."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from tests.callbacks._inputs import PROBLEM, Loss, Network, OutOfMemory, collated, fitted, pictures
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from hsl.callbacks.oom_backoff import MemoryExhaustedError, OomBackoff
from hsl.errors import ConfigError
from hsl.models.network import checkpoint_gradients, checkpoint_network
from hsl.tasks.segmentation import SegmentationTask
from hsl.weighting.aggregation import Aggregation
from hsl.weighting.gramian import PCGrad
from hsl.weighting.scalar import Famo, Fixed


def assert_equal_runs(found: Any, expected: Any) -> None:
    (task, trainer), (other, other_trainer) = found, expected
    for (name, value), reference in zip(task.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-10, msg=name)
    # logged in float32
    logged, wanted = ({k: float(v) for k, v in one.callback_metrics.items()} for one in (trainer, other_trainer))
    assert logged.keys() == wanted.keys()
    assert logged == pytest.approx(wanted, abs=1e-6)
    assert trainer.global_step == other_trainer.global_step


def events(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "oom.json").read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """By the number of batches that are accumulated; without the callback."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {n: fitted(folder, None, with_callback=False, accumulate_grad_batches=n) for n in (1, 2)}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "passes", [(), (0,), (1,), (3, 4), (1, 3, 8)], ids=lambda passes: "-".join(map(str, passes)) or "none"
)
def test_weights_and_logged_losses_are_those_of_the_undisturbed_run(
    tmp_path: Path, undisturbed: dict[int, Any], passes: tuple[int, ...], accumulate: int
) -> None:
    found = fitted(tmp_path, OutOfMemory(*passes), accumulate_grad_batches=accumulate)
    assert_equal_runs(found, undisturbed[accumulate])
    assert len(events(tmp_path) if passes else []) == len(passes)


def test_every_event_is_recorded(tmp_path: Path) -> None:
    fitted(tmp_path, OutOfMemory(3, 4))
    first, second = events(tmp_path)
    assert {name: first[name] for name in ("step", "epoch", "phase", "cut", "reason")} == {
        "step": 3, "epoch": 1, "phase": "train", "cut": "train", "reason": "out of memory",
    }  # fmt: skip
    assert [(one["micro_batch_before"], one["micro_batch_after"]) for one in (first, second)] == [(4, 2), (2, 1)]
    assert not second["gradient_checkpointing"]
    assert "DefaultCPUAllocator" in first["error"]
    assert first["memory"].keys() == {"device", "used_bytes", "total_bytes"}
    assert [path.name for path in tmp_path.iterdir()] == ["oom.json"]


def test_the_half_stays_and_a_start_size_is_kept(tmp_path: Path, undisturbed: dict[int, Any]) -> None:
    fails = OutOfMemory(1)
    fitted(tmp_path, fails, max_epochs=1, limit_val_batches=0)
    assert fails.sizes == [4, 4, 2, 2, 2]
    fails = OutOfMemory()
    assert_equal_runs(fitted(tmp_path, fails, micro_batch=3), undisturbed[1])
    assert fails.sizes[:5] == [2, 2, 2, 2, 2]


def test_another_error_is_not_caught(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fitted(tmp_path, OutOfMemory(1, error=RuntimeError("CUDA error: an illegal memory access")))
    assert not (tmp_path / "oom.json").exists()


def test_batch_norm_and_generators_are_taken_back_before_the_replay(tmp_path: Path) -> None:
    """The failed pass comes second, after batch norm has seen the first slice of the batch."""

    def middle() -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5))

    undisturbed, disturbed = OutOfMemory(), OutOfMemory(1)
    options: dict[str, Any] = {"middle": middle, "max_epochs": 1, "limit_val_batches": 0}
    expected = fitted(tmp_path, undisturbed, micro_batch=1, **options)
    fails = OutOfMemory(1)
    found = fitted(tmp_path, fails, micro_batch=2, **options)
    assert_equal_runs(found, expected)  # the same slices, statistics and masks as if it had begun with one picture
    assert torch.equal(fails.generators[2], fails.generators[0])
    assert found[0].network.encoder[1][0].num_batches_tracked == 10  # type: ignore[index, union-attr]
    fitted(tmp_path, disturbed, **options)
    assert disturbed.sizes == [4, 4, 2, 2, 2]


def test_gradient_checkpointing_from_the_start_changes_no_weight(tmp_path: Path, undisturbed: dict[int, Any]) -> None:
    found = fitted(tmp_path, None, checkpointing=True)
    assert_equal_runs(found, undisturbed[1])
    assert found[0].micro_batches.recomputes
    assert not (tmp_path / "oom.json").exists()


def test_at_one_picture_gradient_checkpointing_is_turned_on(tmp_path: Path) -> None:
    """Batch norm sees each slice once, though its forward pass is run twice."""
    middle = partial(nn.BatchNorm2d, 4)
    expected = fitted(tmp_path, OutOfMemory(), micro_batch=1, middle=middle)
    found = fitted(tmp_path, OutOfMemory(0, 1, 2), middle=middle)
    assert_equal_runs(found, expected)
    halves = [(one["micro_batch_before"], one["micro_batch_after"]) for one in events(tmp_path)]
    assert halves == [(4, 2), (2, 1), (1, 1)]
    assert [one["gradient_checkpointing"] for one in events(tmp_path)] == [False, False, True]
    assert found[0].micro_batches.recomputes


def test_one_picture_too_many_ends_the_run_with_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(
        MemoryExhaustedError,
        match=r"A micro-batch of 1 picture should fit in memory with gradient checkpointing\. Found [\d.]+ of [\d.]+ "
        r"GiB in use on cpu in step 0 \(train\): .*DefaultCPUAllocator.* Lower `data.image_size`",
    ):
        fitted(tmp_path, OutOfMemory(room=0))
    assert len(events(tmp_path)) == 4


def test_validation_gets_by_with_fewer_pictures(tmp_path: Path, undisturbed: dict[int, Any]) -> None:
    assert_equal_runs(fitted(tmp_path, OutOfMemory(room=1)), undisturbed[1])
    seen = {(one["phase"], one["cut"], one["micro_batch_before"]) for one in events(tmp_path)}
    assert seen == {("train", "train", 4), ("train", "train", 2), ("val", "forward", 4), ("val", "forward", 2)}


def test_a_test_run_gets_by_with_fewer_pictures(tmp_path: Path) -> None:
    task, _ = fitted(tmp_path, None, max_epochs=1)
    task.network.fails = OutOfMemory(room=2)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[OomBackoff(str(tmp_path / "oom.json"))], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.test(task, DataLoader(pictures(), batch_size=4, collate_fn=collated), verbose=False)
    assert [(one["phase"], one["cut"], one["micro_batch_after"]) for one in events(tmp_path)] == [
        ("test", "forward", 2)
    ]
    assert not task.micro_batches.active


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
@pytest.mark.parametrize("weighting", ["pcgrad", "famo"])
def test_state_of_the_weighting_is_taken_back(tmp_path: Path, weighting: str, precision: Any) -> None:
    """A run that begins with one picture, and one that comes to it in the first batch, go the same way."""

    def made(weights: Any) -> nn.Module:
        return Famo(weights) if weighting == "famo" else Aggregation(weights, PCGrad(seed=1))

    expected = fitted(tmp_path, OutOfMemory(), weighting=made, micro_batch=1, precision=precision)
    found = fitted(tmp_path, OutOfMemory(1), weighting=made, micro_batch=2, precision=precision)
    for (name, value), other in zip(found[0].state_dict().items(), expected[0].state_dict().values(), strict=True):
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert same, name


def test_a_resumed_run_goes_on_with_the_half(tmp_path: Path) -> None:
    options: dict[str, Any] = {"limit_val_batches": 0}
    resumed = []
    for fails, again in ((None, None), (OutOfMemory(1, 2, 3), OutOfMemory())):
        _, trainer = fitted(tmp_path, fails, with_callback=fails is not None, max_epochs=1, **options)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        resumed.append(
            fitted(tmp_path, again, with_callback=fails is not None, after=str(tmp_path / "last.ckpt"), **options)
        )
    assert_equal_runs(*resumed)
    task = resumed[1][0]
    assert set(task.network.fails.sizes) == {1}  # type: ignore[union-attr]
    assert task.micro_batches.recomputes
    assert len(events(tmp_path)) == 3


def test_gradient_checkpointing_changes_no_gradient_and_takes_timms_own_switch() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        network = Network(class_heads=())
        if checkpointed:
            checkpoint_network(network)
        network(images)["segmentation"].square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))

    class Timm(nn.Identity):
        on = False

        def set_grad_checkpointing(self, enable: bool) -> None:
            self.on = enable

    encoder = nn.Module()
    encoder.body = nn.Module()
    encoder.body.model = Timm()
    checkpoint_gradients(encoder)
    assert encoder.body.model.on


def test_a_micro_batch_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`micro_batch = 0`"):
        OomBackoff("oom.json", 0)


DDP = """
import sys
from pathlib import Path
import lightning, torch
sys.path.insert(0, sys.argv[1])
import _inputs as t
from hsl.callbacks.oom_backoff import OomBackoff
from hsl.errors import ConfigError
from hsl.weighting.scalar import Famo, Fixed

folder, weighting = Path(sys.argv[2]), sys.argv[3]
made = {"fixed": Fixed, "famo": Famo}[weighting]

class Trainer(lightning.Trainer):
    def __init__(self, **options):
        options["callbacks"] = options["callbacks"] + [Sampled()]
        super().__init__(**{**options, "devices": 2, "strategy": "ddp"})

class Sampled(lightning.Callback):
    def on_train_start(self, trainer, pl_module):
        if pl_module.network.fails is not None and trainer.global_rank == 0:
            pl_module.network.fails = t.OutOfMemory()  # the other process alone runs out of memory

t.lightning = type("L", (), {"Trainer": Trainer, "seed_everything": staticmethod(lightning.seed_everything)})
try:
    results = {}
    for name, fails in (("plain", None), ("disturbed", t.OutOfMemory(0, 2))):
        task, trainer = t.fitted(folder, fails, weighting=made, with_callback=name == "disturbed",
                                 accumulate_grad_batches=2)
        results[name] = {"weights": task.state_dict(), "loss": float(trainer.callback_metrics["train/loss"]),
                         "sizes": getattr(task.network.fails, "sizes", [])}
    torch.save(results, folder / f"{trainer.global_rank}.pt")
except ConfigError as error:
    print(error)
    raise SystemExit(7)
"""


def distributed(folder: Path, weighting: str) -> "subprocess.CompletedProcess[str]":
    script = folder / "ddp.py"
    script.write_text(DDP)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(folder), weighting]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_halve_together_though_one_runs_out_of_memory(tmp_path: Path) -> None:
    done = distributed(tmp_path, "fixed")
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for rank in ranks:
        for name, value in rank["plain"]["weights"].items():
            torch.testing.assert_close(rank["disturbed"]["weights"][name], value, rtol=0, atol=1e-10)
        assert rank["disturbed"]["loss"] == pytest.approx(rank["plain"]["loss"], abs=1e-6)
    assert [one["micro_batch_after"] for one in events(tmp_path)] == [2, 1]
    other = json.loads((tmp_path / "oom.rank1.json").read_text())
    assert [one["micro_batch_after"] for one in other] == [2, 1]
    assert "DefaultCPUAllocator" in other[0]["error"]
    assert "Another process" in events(tmp_path)[0]["error"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_that_talk_within_the_forward_pass_are_refused(tmp_path: Path) -> None:
    done = distributed(tmp_path, "famo")
    assert done.returncode != 0
    assert "`weighting=fixed` or `weighting=uncertainty`" in done.stdout + done.stderr


@pytest.mark.gpu
def test_a_real_error_of_a_capped_device_and_the_check_before_it(tmp_path: Path) -> None:
    """Two wide convolutions on pictures of 1024 x 1024 px: 8 at once need more than the cap, fewer do not."""

    class Wide(Network):
        def __init__(self, class_heads: Any, **_: Any) -> None:
            super().__init__(class_heads)
            self.float()
            self.encoder = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Tanh(), nn.Conv2d(32, 4, 1))

    task = SegmentationTask(
        network=Wide, loss=Loss, weighting=Fixed, optimizer=lambda module: SGD(module.parameters(), lr=0.1),
        scheduler=lambda optimizer, **_: LambdaLR(optimizer, lambda step: 1.0),
        predictor=lambda network, images: network(images), metrics={},
        problem=PROBLEM,
    )  # fmt: skip
    batch = collated([{"id": str(i), "image": torch.zeros(3, 1024, 1024),
                       "mask": torch.zeros(1024, 1024, dtype=torch.int64)} for i in range(8)])  # fmt: skip
    torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / torch.cuda.mem_get_info()[1])
    try:
        trainer = lightning.Trainer(
            accelerator="gpu", devices=1, max_steps=4, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, callbacks=[OomBackoff(str(tmp_path / "oom.json"))], default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(task, DataLoader([batch] * 4, batch_size=None))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    found = events(tmp_path)
    assert found[0]["reason"] == "out of memory"
    assert found[0]["memory"]["device"].startswith("cuda")
    assert [one["micro_batch_after"] for one in found] == [4, 2, 1][: len(found)]
    assert trainer.global_step == 4
