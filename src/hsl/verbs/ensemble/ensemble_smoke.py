"""`hsl smoke ensemble`: does the whole path of an ensemble work on this machine, from training to audit."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from hsl.errors import ConfigError, DataError
from hsl.files.split_file import read_split
from hsl.run_folder.ensemble import read_ensemble, read_ensemble_rows, read_isolation
from hsl.run_folder.layout import SPLITS
from hsl.terminal import say

SEEDS, FOLDS = (0, 1), (0, 1)
HSL = [sys.executable, "-c", "from hsl.cli import main; main()"]


def smoke_ensemble(cfg: DictConfig) -> None:
    """Train members of two seeds on two folds, combine them, and look at rows, overlap and audit.

    Raises:
        ConfigError: the output is no new or empty folder.
        DataError: a command failed, or what it left is wrong; the message tells what.
    """
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"`output` should be a new or empty folder. Found `output = {output}`. Choose another.")
    words = [*cfg.settings, f"data.reader.num_pictures={cfg.num_pictures}", f"data.root={output}/data"]
    words += [f"output_root={output}", "name=members"]
    for seed in SEEDS:
        for fold in FOLDS:
            call("train", *words, f"seed={seed}", f"fold={fold}")
    place = output / "ensemble"
    stages = f"stages=[{','.join(cfg.stages)}]"
    call("ensemble", f"runs={output}/members", f"output={place}", stages, f"num_parts={cfg.num_parts}",
         "resamples=200", f"cache_dir={output}/.cache")  # fmt: skip
    call("audit", f"ensemble={place}")
    findings = _findings(output, place)
    if findings:
        raise DataError(f"An ensemble of drawn pictures should be whole. Found: {'; '.join(findings)}.")


def _findings(output: Path, place: Path) -> list[str]:
    """What is wrong with a finished ensemble; what is right is said."""
    page, findings = read_ensemble(place), []
    split = read_split(next(iter(sorted(output.rglob(SPLITS)))))
    outside = {name for fold in split.folds for name in fold.val}
    for head in page.heads:
        rows = read_ensemble_rows(place / head)
        counts = f"{len(rows['ids'])} rows of {len(rows['members'])} members, {len(outside)} pictures outside the test"
        say(f"{head}: {counts} part, {len(read_isolation(place / head))} checks")
        if set(rows["ids"]) != outside or len(rows["ids"]) != len(outside):
            findings.append(f"{head}: {counts} part")
        if overlap := set(rows["ids"]) & set(split.test):
            findings.append(f"{head}: {len(overlap)} rows of the test part")
    return findings


def call(*words: str) -> None:
    """Run a command of hsl in a process of its own.

    Raises:
        DataError: it ended badly; the message has the last line that it said.
    """
    done = subprocess.run([*HSL, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        told: Sequence[str] = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DataError(f"`hsl {' '.join(words)}` should end well. Found: {told[-1] if told else 'nothing said'}")
    say(f"hsl {words[0]} {' '.join(word for word in words if word.startswith(('seed', 'fold', 'output=')))}: ok")
