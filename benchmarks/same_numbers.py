"""Do two states of the code give the same numbers? Six presets, tiny and seeded, and every report on them, compared.

A move of the code changes no number. To show it, make the runs with the old and with the new state on one machine,
on the same data folder (paths enter hashes), and compare:

    git worktree add ../old OLD_COMMIT
    python -m benchmarks.same_numbers make /tmp/same/old --checkout ../old --data /tmp/same/data
    python -m benchmarks.same_numbers make /tmp/same/new --checkout . --data /tmp/same/data
    python -m benchmarks.same_numbers compare /tmp/same/old /tmp/same/new
    python -m benchmarks.same_numbers check-old /tmp/same/old --checkout . --out /tmp/same/read

`make` runs the command line of the checkout and imports nothing of it. `compare` reads the scores of the runs, the
tables, answers and plotted numbers of the reports, predicted masks, re-evaluated scores and the list of runs; it prints
each difference as file, key, old, new. Left out are times, commit, absolute paths and the names of run folders, which
are times of start: the n-th folder of one side is compared with the n-th of the other. `--added REGEX` allows keys
that only the new side has, `--renamed OLD=NEW` (as often as needed) a new title of a column.
`check-old` hands run folders that another state wrote to the verbs that read run folders, and compares the same.
Exit code: 0 equal, 1 different, 2 a file is on one side only. `make` takes some five minutes of one core.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks._presets import WRITERS, Values, files_of, leaves, values_of

SMALL = ["encoder.weights=null", "data.num_workers=0", "data.audit.missing_classes=warn", "trainer.accelerator=cpu",
         "trainer.max_epochs=1", "logger=none", "callbacks.progress=null"]  # fmt: skip
DEMO = ["data.reader.num_pictures=60", "data.reader.size=64", "data.image_size=64", "data.batch_size=4", "fold=0,1"]
GENERATED = ["data.audit.near_duplicates=off", "data.batch_size=4"]
PRESETS = {
    "demo": [*DEMO, "encoder=mobilenetv3_small,resnet10t"],
    "demo_multitask": [*DEMO, "encoder=resnet10t", "decoder.width=16", "weighting=fixed,nash_mtl"],
    "leaf_dual_head": [*GENERATED, "encoder=mit_b0", "decoder.channels=16", "decoder.skip_channels=8",
                       "data.image_size=64", "data.labels.unchecked=true", "data.labels.tier_weights.C=0.2",
                       "callbacks.rollback_gate.minimum={val/miou:0.5},{val/miou:0.0}",
                       *(f"phases.{phase}.overrides.trainer.max_epochs=1" for phase in "ABC")],
    "histology": [*GENERATED, "encoder=mobilenetv3_small,resnet10t", "decoder.channels=[16,8,8,8,8]",
                  "data.image_size=32", "data.split.groups=null"],
    "steel_cbam": [*GENERATED, "encoder.name=tu-test_convnext", "data.image_size=[32,64]", "optimizer.lr=1e-3,2e-3",
                   "scheduler.warmup_epochs=0.5"],
    "coral_flat": [*GENERATED, "encoder=mit_b0,resnet10t", "decoder.channels=16", "data.image_size=64",
                   "inference.window=64", "inference.stride=32"],
}  # fmt: skip

READ = ("reports", "predicted", "evaluated", "listing.json")
ROOMS = ("runs", "labels", *READ)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


def hsl(checkout: Path, *words: str) -> str:
    """What `hsl WORDS` of the checkout says; its errors go to the terminal."""
    print("hsl", *words, flush=True)
    given = {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", "from hsl.cli import main; main()", *words]
    return subprocess.run(command, env=os.environ | given, stdout=subprocess.PIPE, text=True, check=True).stdout


def read_back(runs: Path, out: Path, checkout: Path, data: Path) -> None:
    """Report, listing, prediction and evaluation of ``runs`` below ``out``, by the verbs of ``checkout``."""
    for preset in PRESETS:
        hsl(checkout, "report", f"runs={runs / preset}", f"output={out / 'reports' / preset}", "formats=[png]",
            "dpi=50", "resamples=1000")  # fmt: skip
    listed = json.loads(hsl(checkout, "runs", f"root={runs}", "--json"))
    (out / "listing.json").write_text(json.dumps(sorted(listed, key=lambda row: row["folder"])))
    run = sorted((runs / "demo/fold0").iterdir())[0]
    (pictures,) = (data / "demo").glob("*/images")
    hsl(checkout, "predict", f"run={run}", f"input={pictures}", f"output={out / 'predicted'}")
    shutil.copytree(run, out / "evaluated")
    hsl(checkout, "evaluate", f"run={out / 'evaluated'}", "inference=whole", f"output_root={out / 'cache'}")


def make(out: Path, checkout: Path, data: Path | None) -> int:
    out.mkdir(parents=True)
    if data:
        data.mkdir(parents=True, exist_ok=True)
        (out / "data").symlink_to(data)
    data = (out / "data").resolve()
    for preset, write in WRITERS.items():
        if not (data / preset).exists():
            write(data / preset, np.random.default_rng(0))
    leaves = [f"data.root={data / 'leaf_dual_head'}", f"output_root={out / 'runs'}"]
    hsl(checkout, "label", "data=folder", "labelling=coffee_leaf", *leaves, f"output={out / 'labels'}",
        "sources.gradcam=null", "data.audit.near_duplicates=off", "workers=1")  # fmt: skip
    for preset, words in PRESETS.items():
        root = data / preset.removesuffix("_multitask")
        labels = [f"data.labels.folder={out / 'labels'}"] if preset == "leaf_dual_head" else []
        places = [f"data.root={root}", f"output_root={out / 'runs'}"]
        hsl(checkout, "train", "-m", f"experiment={preset}", *places, *SMALL, *words, *labels)
    read_back(out / "runs", out, checkout, data)
    return 0


def compare(
    old: Path,
    new: Path,
    added: str | None = None,
    renamed: Sequence[str] = (),
    rounding: float = 0.0,
    rooms: Sequence[str] = ROOMS,
) -> int:
    """Print every difference; 0 equal, 1 different, 2 a file is on one side only."""
    sides = files_of(old, rooms), files_of(new, rooms)
    alone = sorted(sides[0].keys() ^ sides[1].keys())
    for name in alone:
        print(f"{name}: only in {old if name in sides[0] else new}")
    if alone or not sides[0]:
        print(f"Both sides should hold the same files. Found {len(sides[0])} and {len(sides[1])}, {len(alone)} alone.")
        return 2
    num_numbers = num_different = num_rounded = 0
    for name, path in sides[0].items():
        before, after = (values_of(side, sorted((old, new), reverse=True)) for side in (path, sides[1][name]))
        before = with_new_names(before, dict(names.split("=", 1) for names in renamed))
        keys = [*before, *(key for key in after if key not in before)]
        for key in keys:
            one, other = before.get(key, "(absent)"), after.get(key, "(absent)")
            num_numbers += len(NUMBER.findall(str(one)))
            allowed = key not in before and added and re.search(added, key)
            if repr(one) == repr(other) or allowed:
                continue
            if is_rounding(str(one), str(other), rounding):
                num_rounded += 1
            else:
                num_different += 1
                print(f"{name}, {key}: {one} -> {other}")
    last_digits = f", {num_rounded} by a share of at most {rounding:g}" if num_rounded else ""
    print(f"{len(sides[0])} files, {num_numbers} numbers, {num_different} different{last_digits}")
    return int(num_different > 0)


def is_rounding(one: str, other: str, share: float) -> bool:
    """Whether two texts are equal but for the last digits of their numbers: sums were made in another order."""
    numbers = NUMBER.findall(one), NUMBER.findall(other)
    alike = share > 0 and NUMBER.sub("", one) == NUMBER.sub("", other)
    return alike and all(math.isclose(float(a), float(b), rel_tol=share) for a, b in zip(*numbers, strict=True))


def with_new_names(values: Values, names: dict[str, str]) -> Values:
    """The same with other titles, as keys and in the row of titles."""
    parts = {key: key.rpartition(".") for key in values}
    new_keys = {key: f"{row}{dot}{names.get(last, last)}" for key, (row, dot, last) in parts.items()}
    return {
        new_keys[key]: names.get(value, value) if isinstance(value, str) else value for key, value in values.items()
    }


def check_old(
    old: Path,
    checkout: Path,
    out: Path,
    added: str | None = None,
    renamed: Sequence[str] = (),
    rounding: float = 0.0,
) -> int:
    """Do the verbs that read run folders say of those below ``old`` what the code that wrote them said?"""
    out.mkdir(parents=True)
    read_back(old / "runs", out, checkout, (old / "data").resolve())
    code = compare(old, out, added, renamed, rounding, READ)
    pages = [out / "evaluated" / below / "metrics.json" for below in ("", "evaluations/whole")]
    stored, again = (json.loads(page.read_text()) for page in pages)
    for part, scores in again["parts"].items():
        before, after = dict(leaves(stored["parts"][part]["plain"])), dict(leaves(scores["whole"]))
        same = all(after.get(key) == one or is_rounding(str(one), str(after.get(key)), rounding)
                   for key, one in before.items())  # fmt: skip
        print(f"evaluate, {part}: {'equal to' if same else 'DIFFERENT from'} what the run stored")
        code = code or int(not same)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make_verb, compare_verb, check_verb = (verbs.add_parser(name) for name in ("make", "compare", "check-old"))
    for verb in (make_verb, check_verb):
        verb.add_argument("--checkout", type=Path, required=True, help="the tree whose src/hsl is run")
    make_verb.add_argument("out", type=Path, help="a new folder for data, runs and reports")
    make_verb.add_argument("--data", type=Path, help="the data, made where there are none; OUT/data")
    compare_verb.add_argument("old", type=Path)
    compare_verb.add_argument("new", type=Path)
    for verb in (compare_verb, check_verb):
        verb.add_argument("--added", metavar="REGEX", help="keys that may be on the new side only")
        verb.add_argument("--rounding", type=float, default=0.0, help="share by which numbers may differ; 0")
        verb.add_argument("--renamed", metavar="OLD=NEW", action="append", default=[], help="a key or title")
    check_verb.add_argument("old", type=Path, help="what `make` made with another checkout")
    check_verb.add_argument("--out", type=Path, required=True, help="a new folder for what the verbs write")
    words = vars(parser.parse_args()).items()
    given = {key: value.resolve() if isinstance(value, Path) else value for key, value in words}
    if "checkout" in given and not (given["checkout"] / "src/hsl").is_dir():
        parser.error(f"`--checkout` should be a tree with src/hsl. Found `{given['checkout']}`.")
    return {"make": make, "compare": compare, "check-old": check_old}[given.pop("verb")](**given)


if __name__ == "__main__":
    sys.exit(main())
