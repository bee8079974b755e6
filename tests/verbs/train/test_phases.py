"""Several phases in one run: what each may change, and that a resumed run ends like an undisturbed one."""

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from hsl.callbacks.last_checkpoint import LastCheckpoint
from hsl.cli import user_sentence
from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError, DataError
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.evaluate import evaluate
from hsl.verbs.opening.building import build_task
from hsl.verbs.train import phases
from hsl.verbs.train.phase_plan import Phase, check_phases, read_phases
from hsl.verbs.train.phases import PhasedRun
from hsl.verbs.train.setup import make_callbacks
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]

QUICK = (
    "callbacks.tta_evaluation=null", "callbacks.evaluation.num_examples=0", "metrics=none",
    "data.split.test_fraction=0", "encoder=mobilenetv3_small", "encoder.weights=null", "+trainer.limit_train_batches=2",
)  # fmt: skip
A = {"freeze": ["encoder"], "overrides": {"trainer.max_epochs": 2, "optimizer.lr": 1e-3}}
B = {"overrides": {"trainer": {"max_epochs": 3}, "optimizer.lr_by_module": {"encoder": 1e-5}}}


def test_each_phase_has_the_direction_of_its_own_score(tiny: Make) -> None:
    cfg = with_phases(tiny, {"A": {"overrides": {"monitor": "val/loss"}}, "B": {}})
    modes = [
        {name: one.mode for name, one in make_callbacks(phase.cfg).items() if hasattr(one, "mode")}
        for phase in read_phases(cfg)
    ]
    assert modes == [
        {"early_stopping": "min", "best_checkpoint": "min"},
        {"early_stopping": "max", "best_checkpoint": "max"},
    ]


def with_phases(tiny: Make, plan: dict[str, Any], *overrides: str) -> DictConfig:
    cfg = tiny(*QUICK, *overrides)
    with open_dict(cfg):
        cfg.phases = plan
        cfg.callbacks.noise = {"_target_": f"{__name__}.Noise"}
    return cfg


def gate(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "hsl.callbacks.rollback_gate.RollbackGate", "metric": "val/miou", "mode": "max",
            "baseline": None, "tolerance": 0.0, "path": "${run_dir}/rollback.json", **arguments}  # fmt: skip


def only_run(cfg: DictConfig) -> Path:
    (folder,) = Path(cfg.output_root).glob("*/fold*/*/")
    return folder


def state(checkpoint: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return loaded


def changed(one: Path, two: Path) -> set[str]:
    """Names of the network's tensors, buffers included, that are not equal bit for bit."""
    a, b = state(one)["state_dict"], state(two)["state_dict"]
    assert a.keys() == b.keys()
    return {name for name in a if name.startswith("network.") and not torch.equal(a[name], b[name])}


class Noise(Callback):
    """Draws random numbers in each step, as dropout would."""

    def on_train_batch_start(self, *_: Any) -> None:
        torch.rand(1)


class Start(Callback):
    """Keeps the weights that each fit begins with."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training only; what is scored behind it is looked at elsewhere."""
    monkeypatch.setattr("hsl.verbs.train.train.score_checkpoint", lambda *_: None)


@pytest.fixture(scope="module")
def run(module_tiny: Make) -> Path:
    """A then B, undisturbed; what each phase begins with is kept beside its checkpoints."""
    cfg = with_phases(module_tiny, {"A": A, "B": B})
    with open_dict(cfg):
        cfg.callbacks.start = {"_target_": f"{__name__}.Start", "path": "${run_dir}/begin.ckpt"}
    train(cfg)
    return only_run(cfg)


def test_a_frozen_encoder_stays_bitwise_and_b_freezes_nothing(run: Path) -> None:
    a, b = run / "phases" / "A", run / "phases" / "B"
    moved = changed(a / "begin.ckpt", a / "checkpoints" / "last.ckpt")
    assert {name.split(".")[1] for name in moved} == {"decoder", "heads"}
    assert changed(a / "checkpoints" / "best.ckpt", b / "begin.ckpt") == set()
    moved = changed(b / "begin.ckpt", b / "checkpoints" / "last.ckpt")
    parameters = {name for name in state(b / "begin.ckpt")["state_dict"] if name.startswith("network.encoder")}
    assert {name for name in moved if name.startswith("network.encoder")} == parameters
    groups = state(b / "begin.ckpt")["optimizer_states"][0]["param_groups"]
    assert sorted({group["initial_lr"] for group in groups}) == [1e-5, 1e-3]
    assert sum(len(group["params"]) for group in groups) > sum(
        len(group["params"]) for group in state(a / "begin.ckpt")["optimizer_states"][0]["param_groups"]
    )


def test_the_run_s_own_files_are_those_of_the_last_phase(run: Path) -> None:
    pages = json.loads((run / "phases.json").read_text())
    assert list(pages) == ["A", "B"]
    assert [(page["status"], page["epochs"]) for page in pages.values()] == [("finished", 2), ("finished", 3)]
    assert all(page["wall_time_s"] > 0 and page["monitor"] == "val/miou" for page in pages.values())
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == (run / pages["B"]["checkpoint"]).read_bytes()
    monitor = json.loads((run / "metrics.json").read_text())["monitor"]
    assert monitor["value"] == pages["B"]["value"]
    assert monitor["epoch"] == 2 + pages["B"]["epoch"]
    history = pd.read_csv(run / "history.csv")
    assert history["phase"].tolist() == ["A"] * 2 + ["B"] * 3
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert history["step"].tolist() == [2, 4, 6, 8, 10]
    assert history.set_index("epoch").loc[monitor["epoch"], "val/miou"] == pytest.approx(monitor["value"])


def test_a_phased_run_can_be_scored_again(run: Path, tiny: Make) -> None:
    evaluate(tiny(f"run={run}", f"trust=[{__name__}.Noise,{__name__}.Start]", verb="evaluate"))
    again = json.loads((run / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"] == json.loads((run / "metrics.json").read_text())["parts"]


def kill(monkeypatch: pytest.MonkeyPatch, phase: str, epoch: int) -> None:
    save = LastCheckpoint.on_train_epoch_end

    def save_then_die(self: LastCheckpoint, trainer: lightning.Trainer, module: Any) -> None:
        save(self, trainer, module)
        if f"phases/{phase}/" in str(self.path) and trainer.current_epoch == epoch:
            raise SystemExit("killed")

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", save_then_die)


def check_damage_is_told_before_anything_is_written(cfg: DictConfig, folder: Path, phase: str) -> None:
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    harmed = {f"phases/{phase}/checkpoints/last.ckpt": f"Phase {phase}: .* Remove `{folder}/phases/{phase}`"}
    if phase == "B":
        harmed["phases/A/checkpoints/best.ckpt"] = "Phase A: .* Put it back"
    for name, said in harmed.items():
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-100])
        with pytest.raises(ConfigError, match=said):
            train(cfg)
        assert {path for path in folder.rglob("*") if path.is_file()} == set(files)
        (folder / name).write_bytes(whole)
        assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("phase", "epoch", "anew"),
    [  # behind the last epoch of A; within B; within B, whose folder is removed as the error of a damaged one advises
        pytest.param("A", 1, False, marks=pytest.mark.slow),
        ("B", 1, False),
        pytest.param("B", 1, True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("unscored")
def test_resumed_equals_uninterrupted(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, run: Path, phase: str, epoch: int, anew: bool
) -> None:
    with monkeypatch.context() as patch:
        kill(patch, phase, epoch)
        with pytest.raises(SystemExit):
            train(with_phases(tiny, {"A": A, "B": B}))
    cfg = with_phases(tiny, {"A": A, "B": B}, "resume=last")
    folder = only_run(cfg)
    assert json.loads((folder / "phases.json").read_text())[phase]["status"] == "running"
    check_damage_is_told_before_anything_is_written(cfg, folder, phase)
    if anew:
        shutil.rmtree(folder / "phases" / phase)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("phases/A/checkpoints/*")}
    train(cfg)
    assert only_run(cfg) == folder
    assert phase == "A" or before == {path: path.stat().st_mtime_ns for path in before}  # A is not run again
    for name in ("A", "B"):
        own, other = (root / "phases" / name / "checkpoints" / "last.ckpt" for root in (folder, run))
        assert changed(own, other) == set()
        one, two = state(own), state(other)
        torch.testing.assert_close(one["optimizer_states"], two["optimizer_states"], rtol=0, atol=0)
        assert one["lr_schedulers"] == two["lr_schedulers"]
        assert torch.equal(one["rng"]["torch"], two["rng"]["torch"])  # what dropout would have drawn
    tables = [pd.read_csv(root / "history.csv") for root in (folder, run)]
    pd.testing.assert_frame_equal(
        *(table.filter(regex="^(phase|epoch|step|lr|val/)") for table in tables), check_exact=True
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unscored")
def test_a_phase_that_stopped_early_trains_no_further_epoch(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {"trainer.max_epochs": 4, "callbacks.early_stopping": {"patience": 1, "min_delta": 10.0}}
    plan = {"A": {"overrides": overrides}}
    with monkeypatch.context() as patch:
        kill(patch, "A", 1)
        with pytest.raises(SystemExit):
            train(with_phases(tiny, plan))
    cfg = with_phases(tiny, plan, "resume=last")
    train(cfg)
    assert json.loads((only_run(cfg) / "phases.json").read_text())["A"]["epochs"] == 2


@pytest.mark.slow
def test_a_reverted_phase_is_taken_back_and_the_next_one_skipped(tiny: Make) -> None:
    one = {"overrides": {"trainer.max_epochs": 1}}
    cfg = with_phases(tiny, {"A": one, "B": one, "C": one})
    with open_dict(cfg):
        cfg.callbacks.gate = gate(minimum={"val/pixel_accuracy": 2.0}, phases=["B"])
    train(cfg)
    folder = only_run(cfg)
    pages = json.loads((folder / "phases.json").read_text())
    assert [page["status"] for page in pages.values()] == ["finished", "reverted", "skipped"]
    assert "B was reverted" in pages["C"]["note"]
    a, b = (folder / "phases" / name / "checkpoints" / "best.ckpt" for name in ("A", "B"))
    assert changed(a, b) == set()
    assert changed(a, folder / "checkpoints" / "best.ckpt") == set()
    assert changed(a, b.with_name("last.ckpt")) != set()
    assert not (folder / "phases" / "C").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["monitor"]["epoch"] == -1
    assert metrics["monitor"]["value"] == pytest.approx(pages["A"]["value"])
    assert metrics["parts"]["val"]["plain"]["miou"] == pytest.approx(pages["A"]["value"], abs=1e-6)
    assert json.loads((folder / "phases" / "B" / "rollback.json").read_text())["decision"] == "reverted"


@pytest.mark.slow
@pytest.mark.usefixtures("unscored")
def test_a_gate_of_the_run_judges_after_the_last_phase(tiny: Make) -> None:
    one = {"overrides": {"trainer.max_epochs": 1}}
    cfg = with_phases(tiny, {"A": one | {"freeze": ["encoder"]}, "B": one})
    with open_dict(cfg):
        cfg.callbacks.gate = gate(scope="run", baseline=2.0)
    train(cfg)
    folder = only_run(cfg)
    assert json.loads((folder / "rollback.json").read_text())["decision"] == "reverted"
    assert not list(folder.glob("phases/*/rollback.json"))
    pages = json.loads((folder / "phases.json").read_text())
    assert [page["status"] for page in pages.values()] == ["finished", "reverted"]
    assert changed(folder / "checkpoints" / "start.ckpt", folder / "checkpoints" / "best.ckpt") == set()


@pytest.fixture(scope="module")
def prepared(module_tiny: Make) -> tuple[DataModule, SegmentationTask]:
    """Data and task of the run without phases."""
    cfg = module_tiny(*QUICK)
    data: DataModule = instantiate(cfg.data)
    data.prepare()
    return data, build_task(cfg, data.prepared)


class Untrained(PhasedRun):
    """Goes through the phases without any training."""

    def __init__(self, folder: Path, cfg: DictConfig) -> None:
        super().__init__(folder, cfg, None, None)  # type: ignore[arg-type]  # what trains only
        self.fitted: list[tuple[str, str | None, int]] = []

    def _fit(self, phase: Phase) -> None:
        labels = OmegaConf.select(phase.cfg, "data.labels.folder")
        self.fitted.append((phase.name, labels, phase.cfg.trainer.max_epochs))
        (self.folder / "best.ckpt").write_bytes(b"weights")
        found = {"monitor": "val/miou", "mode": "max", "value": 0.5, "epoch": 0, "checkpoint": "best.ckpt"}
        self._write(phase.name, {"status": "finished", "epochs": 1, **found})

    def _parts(self, phase: Phase) -> Any:
        return None, None


@pytest.mark.parametrize(
    ("drifts", "rounds", "kept"),
    [([0.1], 0, "labels/round_1"), ([0.4, 0.1], 1, "labels/round_2"), ([0.4, 0.5], 1, "labels/round_1"),
     ([0.4, 0.3, 0.1], 2, "labels/round_3")],
)  # fmt: skip
def test_labels_are_refined_until_they_settle(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drifts: list[float], rounds: int, kept: str
) -> None:
    given: list[tuple[str, str]] = []

    def refine(task: Any, data: Any, earlier: list[Path], output: Path) -> float:
        assert earlier[0].name == "painted"
        given.append((earlier[-1].name, output.name))
        return drifts[len(given) - 1]

    monkeypatch.setattr(phases, "refine_round", refine)
    cfg = with_phases(tiny, {"A": A | {"refine": True, "overrides": {"trainer.max_epochs": 5}}, "B": B})
    with open_dict(cfg):
        cfg.data.labels = {"folder": "painted"}
    run = Untrained(tmp_path, cfg)
    run.fit()
    folders = ["painted", "round_1", "round_2", "round_3"]
    assert given == list(pairwise(folders[: len(drifts) + 1]))
    between = [(f"A_round_{n}", str(tmp_path / "labels" / f"round_{n}"), 2) for n in range(1, rounds + 1)]
    assert run.fitted == [("A", "painted", 5), *between, ("B", str(tmp_path / kept), 3)]

    resumed = Untrained(tmp_path, cfg)  # everything is done: neither trained nor refined again
    resumed.fit()
    assert resumed.fitted == []
    assert len(given) == len(drifts)


def test_labels_that_oscillate_stop_the_run(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drifts = iter([0.4, 0.3, 0.2])
    monkeypatch.setattr(phases, "refine_round", lambda *_: next(drifts))
    cfg = with_phases(tiny, {"A": A | {"refine": True}, "B": B})
    with open_dict(cfg):
        cfg.data.labels = {"folder": "painted"}
    with pytest.raises(DataError, match="oscillate"):
        Untrained(tmp_path, cfg).fit()


def test_without_pseudo_labels_nothing_is_refined_and_that_is_noted(tiny: Make, tmp_path: Path) -> None:
    run = Untrained(tmp_path, with_phases(tiny, {"A": A | {"refine": True}, "B": B}))
    run.fit()
    assert [name for name, *_ in run.fitted] == ["A", "B"]
    assert "nothing to refine" in run.pages["A"]["refinement"]["note"]


@pytest.mark.parametrize(
    ("plan", "more", "words"),
    [
        ({"A": {"overrides": {"optimizer.rate": 1}}}, {}, "`phases.A.overrides`.*`optimizer.rate`"),
        ({"A": {"overrides": {"optimizer": {"rate": 1}}}}, {}, "`phases.A.overrides`.*`optimizer.rate`"),
        ({"A": {"overrides": {"trainer.max_epochs.more": 1}}}, {}, "`trainer.max_epochs.more`"),
        ({"A": {"overrides": {"fold": 1}}}, {}, "`fold`"),
        ({"A": {"overrides": {"data": {"split": {"num_folds": 4}}}}}, {}, "`data.split`"),
        ({"A": {"overrides": {"monitor_mode": "most"}}}, {}, "Phase A: `monitor_mode`"),
        ({"A": {"overrides": {"monitor": "val/dream"}}}, {}, "Phase A: `monitor`.*val/miou"),
        ({"A": {"overrides": {"monitor": "val/accuracy"}}}, {}, "Phase A: `monitor` should be one of.*val/miou"),
        ({"A": {"overrides": {"monitor": "val/loss", "monitor_mode": "max"}}}, {}, "Phase A: .* should be min"),
        ({"A": {"overrides": {"trainer.check_val_every_n_epoch": 9}}}, {}, "Phase A: .*at most .*, 3"),
        ({"A": {"refine": True, "overrides": {"trainer.check_val_every_n_epoch": 2}}, "B": {}}, {}, "at most 1"),
        ({"A": {"overrides": {"trainer.precision": "16-true"}}}, {}, "Phase A: `trainer.precision`"),
        (None, {"gate": gate(metric="val/loss", mode="max")}, "`rollback_gate.mode` should be min"),
        (None, {"gate": gate(minimum={"val/loss": 0.5})}, "`rollback_gate.minimum`.*val/loss"),
        ({"A": {"overrides": {"encoder.name": "mobilenetv3_small_075"}}}, {}, "Phase A.*leave the model"),
        ({"A": {"overrides": {"trainer.devices": 2}}}, {}, "`trainer.devices` should be 1"),
        ({"A": {}, "B": {"freeze": ["encoder", "decoder", "heads"]}}, {}, "Phase B: `freeze` should leave something"),
        ({"A": {"freeze": ["backbone"]}}, {}, "encoder, decoder, heads, heads.segmentation.*`backbone`"),
        ({"A": {"freeze": ["encoder"], "overrides": {"optimizer.lr_by_module": {"encoder": 1e-5}}}}, {},
         "`optimizer.lr_by_module`.*`encoder`"),
        ({"A": {"thaw": ["encoder"]}}, {}, "`phases.A.thaw`"),
        ({"A/B": {}}, {}, "`A/B`"),
        ({"A": {}, "B": {"refine": True}}, {}, "`refine`.*Found it in B"),
        ({"A": {}}, {"gate": gate(phases=["B"])}, "`rollback_gate.phases`.*Found B.*has A"),
        (None, {"gate": gate(phases=["B"])}, "`phases` has none"),
        (None, {"gate": gate(baseline="nowhere")}, "`rollback_gate.baseline = nowhere`"),
        ({"A": {}, "B": {"overrides": {"callbacks.gate.baseline": "nowhere"}}}, {"gate": gate()}, "nowhere"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anything_starts(
    tiny: Make,
    prepared: tuple[DataModule, SegmentationTask],
    plan: dict[str, Any] | None,
    more: dict[str, Any],
    words: str,
) -> None:
    cfg = with_phases(tiny, plan) if plan else tiny(*QUICK)
    with open_dict(cfg):
        cfg.resume = more.get("resume")
        if "gate" in more:
            cfg.callbacks.gate = more["gate"]
    with pytest.raises((ConfigError, InstantiationException)) as found:
        check_phases(cfg, *prepared)
    assert re.search(words, user_sentence(found.value) or "", re.DOTALL)


def test_a_mistake_leaves_no_folder(tiny: Make) -> None:
    cfg = with_phases(tiny, {"A": {"freeze": ["backbone"]}})
    with pytest.raises(ConfigError, match="backbone"):
        train(cfg)
    assert not list(Path(cfg.output_root).glob("*/fold*/*"))


def test_the_command_line_changes_a_phase(tiny: Make) -> None:
    """As docs/training.md says: what is set, what is not, and what is to go."""
    b = "phases.B.overrides"
    chosen = ("phases.A.overrides.trainer.max_epochs=7", f"+{b}.data.batch_size=4", f"~{b}.monitor", "~phases.C")
    first, second = read_phases(tiny("task=dual_head", "loss=dual_head", "phases=dual_head", *chosen))
    assert (first.cfg.trainer.max_epochs, second.cfg.trainer.max_epochs) == (7, 25)
    assert (second.cfg.data.batch_size, second.cfg.monitor) == (4, "val/miou")


def test_a_key_with_dots_is_changed_by_a_plus(tiny: Make) -> None:
    cfg = with_phases(tiny, {"A": {"overrides": {"trainer.max_epochs": 9, "trainer": {"max_epochs": 7}}}})
    assert read_phases(cfg)[0].cfg.trainer.max_epochs == 7


def test_the_published_schedule(tiny: Make) -> None:
    cfg = tiny("task=dual_head", "loss=dual_head", "phases=dual_head")
    a, b, c = read_phases(cfg)
    assert [phase.cfg.trainer.max_epochs for phase in (a, b, c)] == [30, 25, 15]
    assert [phase.cfg.callbacks.early_stopping.patience for phase in (a, b, c)] == [5, 5, 3]
    assert [phase.cfg.optimizer.lr for phase in (a, b, c)] == [1e-3, 1e-4, 1e-4]
    assert [dict(phase.cfg.loss.weights) for phase in (a, b, c)] == [
        {"segmentation": 1.0, "classification": 0.0},
        {"segmentation": 0.4, "classification": 0.6},
        {"segmentation": 0.0, "classification": 1.0},
    ]
    assert b.cfg.optimizer.lr_by_module == {"encoder": 1e-5}
    assert [phase.cfg.loss.focus for phase in (a, b, c)] == [None, None, "foreground"]
    assert [phase.refine for phase in (a, b, c)] == [True, False, False]
