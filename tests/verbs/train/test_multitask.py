"""A whole run of several tasks: what it leaves, resuming, scoring again, predicting."""

import json
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image
from tests.verbs._asserts import SMALL, assert_maps_agree, assert_same_training, only_run, weights

from hsl.callbacks.last_checkpoint import LastCheckpoint
from hsl.errors import ConfigError
from hsl.verbs.evaluate import evaluate
from hsl.verbs.predict.predict import predict
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]
TASKS = ("damage", "shape", "kind")
MULTITASK = (
    *SMALL,
    "data.tasks=demo",
    "task=multitask",
    "loss=multitask",
    "loss.implications=[[damage,kind]]",
    "decoder=hierarchical",
    "decoder.width=16",
    "weighting=pcgrad",
    "callbacks=[default,weighting_log]",
    "callbacks.weighting_log.every_n_steps=1",
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)


def test_several_tasks_from_training_to_prediction(
    tiny: Make, module_tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_cfg = module_tiny(*MULTITASK)
    value = train(whole_cfg)
    whole = only_run(Path(whole_cfg.output_root).parent)
    check_what_it_leaves(whole, value)
    check_scored_again(whole, tiny)
    assert_maps_agree(whole)  # in the global space
    check_prediction(whole, tiny, tmp_path)

    save = LastCheckpoint.on_train_epoch_end

    def save_then_die(self: LastCheckpoint, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        save(self, trainer, module)
        if trainer.current_epoch == 0:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_epoch_end", save_then_die)
        with pytest.raises(SystemExit):
            train(tiny(*MULTITASK))
    train(tiny(*MULTITASK, "resume=last"))
    resumed = only_run(tmp_path)
    assert_same_training(resumed, whole)
    assert "weighting._extra_state" in weights(resumed)["state_dict"]  # compared above: the order that PCGrad draws
    lines = [(folder / "weighting.jsonl").read_text() for folder in (resumed, whole)]
    assert lines[0] == lines[1]


def check_what_it_leaves(folder: Path, value: float | None) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    plain = metrics["parts"]["val"]["plain"]
    assert plain["miou"] == pytest.approx(value, abs=1e-6)
    assert set(plain["tasks"]) == set(metrics["task_classes"]) == set(TASKS)
    assert metrics["task_classes"]["shape"] == ["clean", "line", "area", "hole"]
    history = pd.read_csv(folder / "history.csv")
    best = history.loc[history["val/miou"].idxmax()]
    for task in TASKS:
        assert best[f"val/miou/{task}"] == pytest.approx(plain["tasks"][task]["miou"], abs=1e-6)
        stored = np.load(folder / f"pixel_counts_{task}.npz")
        chosen = (stored["part"] == "val") & (stored["inference"] == "plain")
        assert stored["matrices"][chosen].sum((0, 1)).tolist() == plain["tasks"][task]["confusion"]
    mious = [best[f"val/miou/{task}"] for task in TASKS]
    assert best["val/h_mean"] == pytest.approx(len(mious) / sum(1 / miou for miou in mious), rel=1e-4)
    steps = [json.loads(line) for line in (folder / "weighting.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert {f"weight/{name}" for name in (*TASKS, "consistency")} <= set(steps[0])


def check_scored_again(folder: Path, tiny: Make) -> None:
    """Also by a sliding window over pictures at their own size, which for one window is the whole picture."""
    stored = json.loads((folder / "metrics.json").read_text())["parts"]["test"]["plain"]
    evaluate(tiny(f"run={folder}", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["test"]["plain"] == stored
    with pytest.raises(ConfigError, match="`evaluation_size` should be source where a window slides"):
        evaluate(tiny(f"run={folder}", "inference=sliding_window", verb="evaluate"))
    sliding = ("inference=sliding_window", "inference.window=64", "inference.stride=48", "evaluation_size=source")
    evaluate(tiny(f"run={folder}", *sliding, verb="evaluate"))
    again = json.loads((folder / "evaluations" / "sliding_window" / "metrics.json").read_text())
    scores = again["parts"]["test"]["sliding_window"]
    assert scores["num_images"] == stored["num_images"]
    assert set(scores["tasks"]) == set(TASKS)


def check_prediction(folder: Path, tiny: Make, tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "predicted"
    pictures.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 91, 3), np.uint8)).save(pictures / "odd.png")
    predict(tiny(f"run={folder}", f"input={pictures}", f"output={out}", verb="predict"))
    assert np.asarray(Image.open(out / "masks" / "odd.png")).shape == (37, 91)
    for task in TASKS:
        assert np.asarray(Image.open(out / "tasks" / task / "odd.png")).shape == (37, 91)


def test_a_flat_model_is_scored_on_the_tasks_that_read_its_map(tiny: Make, tmp_path: Path) -> None:
    """The reference is the class maps that the run leaves, looked up in the tables of the definition."""
    value = train(tiny(*SMALL, "data.tasks=demo", "monitor=val/h_mean"))
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    plain = metrics["parts"]["val"]["plain"]
    tables = {"damage": [0, 1, 1, 1, 1, 1], "shape": [0, 1, 1, 2, 2, 3], "kind": [0, 1, 2, 3, 4, 5]}
    assert metrics["task_classes"]["shape"] == ["clean", "line", "area", "hole"]
    assert metrics["classes"] == ["clean", "crack", "scratch", "paint_loss", "stain", "puncture"]
    confusion = np.array(plain["confusion"])
    mious = []
    for task, table in tables.items():
        expected = np.zeros((max(table) + 1,) * 2, dtype=int)
        np.add.at(expected, (np.array(table)[:, None], np.array(table)[None]), confusion)
        assert plain["tasks"][task]["confusion"] == expected.tolist()
        hits, union = expected.diagonal(), expected.sum(0) + expected.sum(1) - expected.diagonal()
        mious.append((hits[union > 0] / union[union > 0]).mean())
        assert plain["tasks"][task]["miou"] == pytest.approx(mious[-1])
    assert value == pytest.approx(len(mious) / sum(1 / miou for miou in mious), abs=1e-6)
    evaluate(tiny(f"run={folder}", verb="evaluate"))
    again = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())
    assert again["parts"]["val"]["plain"] == plain
