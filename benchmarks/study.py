"""Studies: epochs with pruning beside without, what a trial costs beyond its training, and kills.

Real trainings of the drawn panels by `hsl study`, all in `outputs/benchmark_study`: a benchmark that was interrupted
goes on where it ended. Forty trials with `pruner=median` and forty without; then twelve trials of two workers, of which
one, or its training, is killed twenty times.
"""

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hsl.run_folder.history import read_history
from hsl.run_folder.layout import HISTORY
from hsl.verbs.study.pages.showing import counted
from hsl.verbs.study.stored_study import read_study
from hsl.verbs.study.study_storage import open_storage

ROOT = Path("outputs/benchmark_study")
TRIALS, KILLED_TRIALS, KILLS, EPOCHS, SIDE, PICTURES = 40, 12, 20, 8, 64, 48
OVERHEAD_S = 2.0
WORDS = [
    "study=demo", "study.folds=[0]", "encoder=mobilenetv3_small", "encoder.weights=null", f"output_root={ROOT}",
    f"data.reader.num_pictures={PICTURES}", f"data.reader.size={SIDE}", f"data.image_size={SIDE}", "data.batch_size=8",
    "data.num_workers=0", "data.audit.missing_classes=warn", "data.split.num_folds=3", f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu", "logger=none", "callbacks.tta_evaluation=null", "callbacks.evaluation.num_examples=0",
    "seed=0",
]  # fmt: skip
HSL = [sys.executable, "-c", "from hsl.cli import main; main()"]


def study(name: str, *words: str) -> Path:
    """Run a study to its end; what it says lies beside its folder."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f"{name}.log").open("a") as log:
        command = [*HSL, "study", *WORDS, f"study.name={name}", *words]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return ROOT / name


def epochs_of(folder: Path) -> int:
    """Epochs that the trials of a study were trained, pruned ones too."""
    runs = {path.parent for path in folder.glob(f"trial*/fold0/*/{HISTORY}")}
    return sum(len({row["epoch"] for row in read_history(run)}) for run in runs)


def trials_of(name: str) -> list[FrozenTrial]:
    """Those that count."""
    return counted(open_storage(ROOT / name, read_study(ROOT / name), None))


def verdict(names: tuple[str, str]) -> str:
    """What the report says of the best trials of two studies, trained again with fresh seeds."""
    page = ROOT / "report" / "cv_results.json"
    if not page.is_file():
        globs = ",".join(f"{ROOT}/{name}/confirmed/*/*/*/*" for name in names)
        subprocess.run([*HSL, "report", f"runs=[{globs}]", f"output={page.parent}"], check=True)
    pairs = json.loads(page.read_text())["comparisons"]
    return str(pairs[0]["verdict"]) if pairs else "the same point"


def descendants(pid: int, depth: int = 1) -> Iterator[tuple[int, int]]:
    """Processes below one, with how far below."""
    children: list[str] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):  # of every thread
        with contextlib.suppress(OSError):
            children += path.read_text().split()
    for child in map(int, children):
        yield child, depth
        yield from descendants(child, depth + 1)


def killed_study(name: str) -> int:
    """A study of two workers, of which workers and trainings are killed at random; how many were."""
    draw, kills = random.Random(0), 0
    with (ROOT / f"{name}.log").open("a") as log:
        words = [*WORDS, f"study.name={name}", f"study.num_trials={KILLED_TRIALS}", "study.workers=2", "pruner=none",
                 "study.confirm.top=0"]  # fmt: skip
        running = subprocess.Popen([*HSL, "study", *words], stdout=log, stderr=subprocess.STDOUT)
        while running.poll() is None:
            time.sleep(draw.uniform(2, 8))
            # below the command a server of processes, below that the workers, each with a server and a training
            chosen = [pid for pid, depth in descendants(running.pid) if depth in (2, 4)]
            if kills < KILLS and chosen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(chosen), signal.SIGKILL)
                    kills += 1
    if running.returncode:
        raise RuntimeError(f"The study should end well whatever is killed. Found {(ROOT / name).with_suffix('.log')}.")
    return kills


def run() -> list[dict[str, Any]]:
    confirm = [
        "study.confirm.top=1",
        "study.confirm.seeds=[101,102,103]",
        f"study.num_trials={TRIALS}",
        "sampler.seed=0",
    ]
    for name in ("none", "median"):
        study(name, f"pruner={name}", *confirm)
    sizes = {"trials": TRIALS, "epochs": EPOCHS, "pixels": SIDE, "pictures": PICTURES}
    versions = {name: version(name) for name in ("optuna", "torch")}
    spent = {name: epochs_of(ROOT / name) for name in ("none", "median")}
    best = {name: max(one.values[0] for one in trials_of(name) if one.values) for name in spent}
    said = verdict(("none", "median"))
    whole = [one for one in trials_of("none") if one.state == TrialState.COMPLETE and one.duration is not None]
    beyond = statistics.median(one.duration.total_seconds() - one.user_attrs["seconds"] for one in whole)
    if not (ROOT / "kills.json").is_file():
        (ROOT / "kills.json").write_text(json.dumps(killed_study("killed")))
    kills = json.loads((ROOT / "kills.json").read_text())
    done = [one.number for one in trials_of("killed") if one.state == TrialState.COMPLETE]
    once = sorted(done) == sorted(set(done)) and len(done) == KILLED_TRIALS and kills == KILLS
    rows: list[tuple[str, dict[str, Any], float, float, float, bool]] = [
        ("epochs without pruning by those with (median)", {**sizes, "best": best, "confirmed": said}, spent["median"],
         spent["none"], 1.0, spent["median"] < spent["none"] and " better" not in said),
        ("2 s by what a trial takes beyond its training", {**sizes, "load": round(os.getloadavg()[0], 1)},
         round(beyond, 2), OVERHEAD_S, 1.0, beyond < OVERHEAD_S),
        ("trials that ended once by those asked for, after kills", {**sizes, "trials": KILLED_TRIALS, "kills": kills},
         len(done), KILLED_TRIALS, 1.0, once),
    ]  # fmt: skip
    return [
        {"name": f"study, {name}", "sizes": facts, "versions": versions, "ours": ours, "peer": peer,
         "ratio": round(ours / peer if "ended" in name else peer / ours, 3), "goal": goal, "holds": holds}
        for name, facts, ours, peer, goal, holds in rows
    ]  # fmt: skip
