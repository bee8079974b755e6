"""`hsl plan` beside the defaults at equal training time (processor seconds), three folds, and the verdict of 7b.

Resumable: what is finished in ``outputs/bench_plan`` is not trained again. ``DATA=nuclei_dsb2018`` takes one data set,
``SECONDS=90`` the training time of a run, ``HSL_REAL_DATA`` the folder of the data sets.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hsl.data.formats.severstal import read_severstal

ROOT = Path(__file__).parents[1]
OUT = Path("outputs/bench_plan")
SECONDS = float(os.environ.get("SECONDS", "90"))
FOLDS = (0, 1, 2)
CALIBRATION_STEPS, FIRST_STEPS = 6, 2
SETS: dict[str, list[str]] = {
    "nuclei_dsb2018": ["data.only={label: [brightfield, stained_color]}"],
    "magnetic_tile": ["data.only={exposure: '1'}"],  # one of six pictures of each tile
    "coffee_leaf": ["data.only={severity: ['2','3','4']}"],
    "steel_severstal_format": ["data.split.groups=null"],  # every fourth picture, run lengths converted to masks
}
"""Data set of ../shared/data to what both arms are given: parts that two cores score in a minute."""
SPLIT = ["data.split.num_folds=3", "data.split.test_fraction=0", "data.split.stop_fraction=0"]
SAME = [
    "data.audit.near_duplicates=off", "data.audit.missing_classes=warn", "metrics=none", "logger=none", "seed=0",
    "callbacks.tta_evaluation=null", "callbacks.early_stopping=null", "callbacks.evaluation.num_examples=0",
    "data.num_workers=0", "trainer.num_sanity_val_steps=0", "trainer.accelerator=cpu", f"output_root={OUT}",
]  # fmt: skip
"""What both arms are given: only pixels are scored, and nothing but the training is timed."""


def run() -> list[dict[str, Any]]:
    sets = [os.environ["DATA"]] if "DATA" in os.environ else list(SETS)
    rows = []
    for name in sets:
        for arm in ("defaults", "plan"):
            for fold in FOLDS:
                train(name, arm, fold)
        rows.append(compare(name))
    return rows


def train(name: str, arm: str, fold: int) -> None:
    """One run of an arm, of as many steps as `SECONDS` allow by the measured steps of the same training."""
    folder = OUT / name / arm
    if any((folder / f"fold{fold}").glob("*/metrics.json")):
        return
    clock = folder / f"fold{fold}.json"
    words = [*words_of(name, arm), f"fold={fold}"]
    measured = folder / "calibration.json"
    if not measured.is_file():
        limits = [f"+trainer.limit_train_batches={CALIBRATION_STEPS}", "+trainer.limit_val_batches=1"]
        limits.append(f"name=calibration/{name}_{arm}")  # out of the report's way
        call("benchmarks/_calibrate.py", [*words, *limits, "trainer.max_epochs=1", *clocked(measured)])
    steps = json.loads(measured.read_text(encoding="utf8"))["steps"][FIRST_STEPS:]
    wanted = max(1, round(SECONDS * len(steps) / sum(steps)))
    epochs = max(1, round(wanted / json.loads(measured.read_text(encoding="utf8"))["batches"]))
    length = [f"name={name}/{arm}", f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}"]
    call("train.py", [*words, *length, f"+trainer.limit_train_batches={-(-wanted // epochs)}", *clocked(clock)])


def words_of(name: str, arm: str) -> list[str]:
    data = ["data=folder", f"data.root={root_of(name)}", *SETS[name], *SPLIT]
    return [*([] if arm == "defaults" else [f"experiment=@{plan_of(name)}"]), *data, *SAME]


def plan_of(name: str) -> Path:
    """The plan of the training part of fold 0; made once."""
    folder = OUT / name / "plans"
    if not (folder / "standard.yaml").is_file():
        minutes = 4 * len(FOLDS) * SECONDS / 60 / 0.8  # of which `standard` gets a quarter, and trains for 0.8 of that
        data = ["data=folder", f"data.root={root_of(name)}", *SETS[name], *SPLIT[:2]]
        call("benchmarks/_hsl.py", ["plan", *data, f"time={minutes:.0f}min", f"output={folder}", f"output_root={OUT}"])
    return folder / "standard.yaml"


def clocked(path: Path) -> list[str]:
    return [f"+callbacks.clock={{_target_: benchmarks._clock.Clock, path: {path}}}", "rerun=true"]


def root_of(name: str) -> Path:
    """Where a data set lies; the one of run lengths is converted to masks first."""
    root = data_folder() / name
    if name != "steel_severstal_format":
        return root
    folder = OUT / "steel"
    if not (folder / "dataset.yaml").is_file():
        found = read_severstal(root)
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for record in found.records[::4]:
            (folder / "images" / f"{record.id}.jpg").write_bytes(record.image.read())
            (folder / "masks" / f"{record.id}.png").write_bytes(record.mask.read())
        (folder / "dataset.yaml").write_text(f"name: steel\nclasses: [{', '.join(found.classes)}]\n", encoding="utf8")
    return folder


def data_folder() -> Path:
    return Path(os.environ.get("HSL_REAL_DATA", "../shared/data"))


def call(script: str, words: list[str]) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src"), env.get("PYTHONPATH", "")])
    print(script, *words, flush=True)
    subprocess.run([sys.executable, str(ROOT / script), *words], check=True, env=env)


def compare(name: str) -> dict[str, Any]:
    """The verdict of 7b on the two arms, over all folds that both have; and the seconds that each was given."""
    output = OUT / name / "report"
    found = {arm: sorted((OUT / name / arm).glob("fold*.json")) for arm in ("defaults", "plan")}
    call("benchmarks/_hsl.py", ["report", f"runs={OUT}/{name}/*/fold*/*", f"output={output}"])
    page = json.loads((output / "cv_results.json").read_text(encoding="utf8"))
    (pair,) = page["comparisons"]
    ours, peer = (mean_miou(OUT / name / arm) for arm in ("plan", "defaults"))
    seconds = {
        arm: [round(json.loads(path.read_text(encoding="utf8"))["seconds"]) for path in paths]
        for arm, paths in found.items()
    }
    print(pair["verdict"], pair["training"], sep="\n")
    return {
        "name": f"plan, {name}: mIoU of `standard` by that of the defaults",
        "sizes": {"folds": len(FOLDS), "training_seconds": seconds, "verdict": pair["verdict"]},
        "versions": {"torch": version("torch"), "lightning": version("lightning")},
        "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 4), "goal": 1.0,
        "holds": ours >= peer,
    }  # fmt: skip


def mean_miou(folder: Path) -> float:
    """Over the validation parts of the folds."""
    pages = [json.loads(path.read_text(encoding="utf8")) for path in sorted(folder.glob("fold*/*/metrics.json"))]
    return float(sum(page["parts"]["val"]["plain"]["miou"] for page in pages) / len(pages))
