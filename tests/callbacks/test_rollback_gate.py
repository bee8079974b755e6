"""Layers are frozen; a gate keeps an epoch or takes it back, to the last bit."""

import json
import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hsl.callbacks.freeze import Freeze, freeze
from hsl.callbacks.rollback_gate import RollbackGate, read_baseline
from hsl.errors import ConfigError
from hsl.run_folder.scores import write_metrics

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*"
)


class Task(lightning.LightningModule):
    """A network with a batch norm and dropout in the part that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.network = nn.ModuleDict({"encoder": encoder, "heads": nn.ModuleDict({"a": nn.Linear(4, 1)})})
        self.modes: set[tuple[bool, bool]] = set()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.modes.add((self.network["encoder"][1].training, self.network["heads"].training))
        return self.network["heads"]["a"](self.network["encoder"](batch[0])).square().mean()

    def validation_step(self, batch: list[Tensor]) -> None:
        self.network["encoder"](batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([one for one in self.parameters() if one.requires_grad], lr=0.1)


def fit(*modules: str) -> tuple[Task, dict[str, Tensor]]:
    """Two epochs, validated in the middle of each and at its end; and the state before."""
    torch.manual_seed(0)
    task, data = Task(), DataLoader(TensorDataset(torch.randn(16, 3)), batch_size=4)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, val_check_interval=2, callbacks=[Freeze(modules)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(task, data, data)
    return task, before


def test_weights_and_buffers_stay_bitwise() -> None:
    task, before = fit("encoder")
    moved = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"network.heads.a.weight", "network.heads.a.bias"}
    assert task.modes == {(False, True)}  # in every step, also behind a validation


def test_nothing_frozen_changes_everything() -> None:
    task, before = fit()
    assert not any(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert task.modes == {(True, True)}


def test_the_optimizer_is_made_behind_it() -> None:
    task, _ = fit("encoder.0", "heads.a")
    trained = {id(one) for group in task.trainer.optimizers[0].param_groups for one in group["params"]}
    assert trained == {id(one) for one in task.network["encoder"][1].parameters()}


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (["encoder", "heads"], "something of the network to train"),
        ([""], "encoder, heads, heads.a"),
        (["heads.b"], "encoder, heads, heads.a.*Found `heads.b`"),
        (["network.encoder"], "`network.encoder`"),
    ],
)
def test_errors(modules: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        freeze(Task().network, modules)


# What a gate keeps, what it takes back, and that it does so to the last bit.


class GatedTask(lightning.LightningModule):
    """Logs what it is told for each validation, the one before the training first."""

    def __init__(self, scores: list[float], size: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(3, size)
        self.scores = scores

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor]) -> None:
        epoch = 0 if self.trainer.sanity_checking else self.current_epoch + 1
        # the mean over all batches is the score; that of the first batch alone is not
        last = len(self.trainer.val_dataloaders) - 1
        self.log("val/score", self.scores[epoch] + (1.0 if self._batch == 0 else -1.0 if self._batch == last else 0.0))
        self.log("val/other", 10 * self.scores[epoch])
        self._batch += 1

    def on_validation_epoch_start(self) -> None:
        self._batch = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Begin(lightning.Callback):
    """Keeps what the training begins with."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.optimizer = trainer.optimizers[0].state_dict()


def make_gate(folder: Path, **arguments: Any) -> RollbackGate:
    chosen = {"metric": "val/score", "mode": "max", "baseline": None, "tolerance": 0.1, **arguments}
    return RollbackGate(path=str(folder / "rollback.json"), **chosen)


def gated_fit(
    folder: Path, gate: RollbackGate, scores: list[float], resume: Path | None = None, size: int = 2, mode: str = "max"
) -> tuple[lightning.Trainer, GatedTask, Begin, ModelCheckpoint]:
    torch.manual_seed(0)
    data, begin = DataLoader(TensorDataset(torch.randn(8, 3)), batch_size=2), Begin()
    best = ModelCheckpoint(
        folder / "checkpoints", filename="best", monitor="val/score", mode=mode, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=len(scores) - 1, callbacks=[begin, gate, best], logger=False,
        num_sanity_val_steps=1, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    task = GatedTask(scores, size)
    trainer.fit(task, data, data, ckpt_path=resume, weights_only=True)
    return trainer, task, begin, best


def page(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "rollback.json").read_text())
    return found


def make_run(folder: Path, monitor: str = "val/score", size: int = 2) -> Path:
    """A finished run: 0.8 at its best epoch, the second."""
    state = {f"layer.{name}": value for name, value in nn.Linear(3, size).state_dict().items()}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": state}, folder / "checkpoints" / "best.ckpt")
    found = {"name": monitor, "mode": "max", "value": 0.8, "epoch": 1}
    write_metrics(folder, {"monitor": found, "classes": [], "parts": {}})
    (folder / "history.csv").write_text("epoch,val/score,val/f1\n0,0.1,0.2\n1,0.8,0.7\n2,0.3,\n")
    return folder


def test_a_worse_training_is_taken_back_to_the_last_bit(tmp_path: Path) -> None:
    gate = make_gate(tmp_path)
    trainer, task, begin, best = gated_fit(tmp_path, gate, [0.7, 0.2, 0.5, 0.4])
    assert gate.decision == "reverted"
    found = page(tmp_path)
    assert (found["baseline"], found["found"]) == pytest.approx((0.7, 0.5))
    assert found["restored_from"] == "checkpoints/start.ckpt"
    assert {"metric", "tolerance", "decision", "time", "scope", "mode"} <= found.keys()
    saved = torch.load(best.best_model_path, weights_only=True)
    for state in (task.state_dict(), saved["state_dict"]):
        assert state.keys() == begin.weights.keys()
        assert all(torch.equal(state[name], value) for name, value in begin.weights.items())
    assert trainer.optimizers[0].state_dict() == begin.optimizer == saved["optimizer_states"][0]
    assert begin.optimizer["state"] == {}  # the moments of three epochs are gone
    assert float(best.best_model_score) == pytest.approx(0.7)  # type: ignore[arg-type]
    assert saved["epoch"] == -1


@pytest.mark.parametrize(
    ("scores", "arguments", "decision"),
    [
        ([0.7, 0.65], {}, "kept"),
        ([0.5, 0.375], {"tolerance": 0.125}, "kept"),  # as bad as is allowed
        ([0.5, 0.374], {"tolerance": 0.125}, "reverted"),
        ([0.7, 0.75], {"minimum": {"val/other": 7.4}}, "kept"),
        ([0.7, 0.75], {"minimum": {"val/other": 7.6}}, "reverted"),
        ([0.1, 0.75], {"baseline": 0.9}, "reverted"),
        ([0.1, 0.75], {"baseline": 0.8}, "kept"),
        ([0.7, 0.75], {"mode": "min"}, "kept"),
        ([0.7, 0.85], {"mode": "min"}, "reverted"),
        ([0.7, math.nan], {"minimum": {"val/other": 0.0}}, "reverted"),
    ],
)
def test_decisions(tmp_path: Path, scores: list[float], arguments: dict[str, Any], decision: str) -> None:
    gate = make_gate(tmp_path, **arguments)
    _, _, begin, best = gated_fit(tmp_path, gate, scores, mode=arguments.get("mode", "max"))
    assert page(tmp_path)["decision"] == gate.decision == decision
    saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(saved[name], value) for name, value in begin.weights.items()) == (decision == "reverted")


def test_what_is_judged_is_the_epoch_that_is_kept(tmp_path: Path) -> None:
    """The monitor keeps the first epoch; that the watched value is better in another one does not count."""
    gate = make_gate(tmp_path, metric="val/other", mode="min", tolerance=0.0)
    gated_fit(tmp_path, gate, [0.5, 0.6, 0.4])
    assert page(tmp_path)["found"] == pytest.approx(6.0)
    assert gate.decision == "reverted"


def test_a_run_as_baseline_gives_its_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path / "earlier")
    own = tmp_path / "own"
    _, task, begin, best = gated_fit(own, make_gate(own, baseline=str(run)), [0.1, 0.6])
    assert page(own)["restored_from"] == str(run)
    expected = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    saved = torch.load(best.best_model_path, weights_only=True)
    for state in (task.state_dict(), saved["state_dict"]):
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert saved["optimizer_states"][0] == begin.optimizer
    assert float(best.best_model_score) == pytest.approx(0.8)  # type: ignore[arg-type]


def test_the_value_of_a_run_is_that_of_its_best_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "earlier")
    assert read_baseline(run, "val/score").value == 0.8
    assert read_baseline(run, "val/f1").value == 0.7
    assert read_baseline(make_run(tmp_path / "other", monitor="val/f1"), "val/score").value == 0.8


@pytest.mark.parametrize("name", ["nowhere", "unfinished", "other metric", "other model"])
def test_a_bad_baseline_stops_before_the_training(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    if name == "unfinished":
        run.mkdir()
    elif name.startswith("other"):
        make_run(run, size=5 if name == "other model" else 2)
    metric = "val/accuracy" if name == "other metric" else "val/score"
    with pytest.raises(ConfigError, match=r"rollback_gate\.baseline.*" + name):
        gated_fit(tmp_path, make_gate(tmp_path, baseline=str(run), metric=metric), [0.1, 0.2])
    assert not (tmp_path / "rollback.json").exists()
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize("arguments", [{"metric": "val/dream"}, {"minimum": {"val/dream": 0.5}}])
def test_an_unknown_value_stops_before_the_training(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"val/other, val/score.*`val/dream`"):
        gated_fit(tmp_path, make_gate(tmp_path, **arguments), [0.1, 0.2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"mode": "most"}, "mode"), ({"scope": "epoch"}, "scope"), ({"tolerance": -1.0}, "tolerance"),
     ({"scope": "run", "phases": ["A"]}, "phases"), ({"tolerance": math.nan}, "tolerance")],
)  # fmt: skip
def test_arguments(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"rollback_gate\.{words}"):
        make_gate(tmp_path, **arguments)


def test_no_value_at_the_start_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollback_gate\.baseline = null"):
        gated_fit(tmp_path, make_gate(tmp_path), [math.nan, 0.2])


def test_a_resumed_training_remembers_its_start(tmp_path: Path) -> None:
    """The scope began before the interruption: neither its snapshot nor its value is taken again."""
    trainer, _, begin, _ = gated_fit(tmp_path, make_gate(tmp_path), [0.7, 0.65])
    (tmp_path / "rollback.json").unlink()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    snapshot = (tmp_path / "checkpoints" / "start.ckpt").stat().st_mtime_ns
    _, task, _, _ = gated_fit(
        tmp_path, make_gate(tmp_path, tolerance=0.0), [9.0, 9.0, 0.6], resume=tmp_path / "last.ckpt"
    )
    assert (tmp_path / "checkpoints" / "start.ckpt").stat().st_mtime_ns == snapshot
    assert page(tmp_path)["baseline"] == pytest.approx(0.7)
    assert page(tmp_path)["decision"] == "reverted"
    assert all(torch.equal(task.state_dict()[name], value) for name, value in begin.weights.items())


def test_a_decision_is_carried_out_again_after_a_kill(tmp_path: Path) -> None:
    """Killed behind the restoring: the checkpoint kept is the start's, which would pass."""
    trainer, *_ = gated_fit(tmp_path, make_gate(tmp_path), [0.7, 0.2])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    gate = make_gate(tmp_path)
    gated_fit(tmp_path, gate, [0.7, 0.2], resume=tmp_path / "last.ckpt")
    assert gate.decision == "reverted"
