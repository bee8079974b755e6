"""A training whose processes srun starts on two nodes; on one machine each task is told that it is a node of its own.

`.ci/run slurm` starts a real SLURM of one node. The wrapper sets only what the second node would have in other words:
its number, its first task, and that there are two.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 400.0
TINY = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=40", "data.image_size=64",
    "data.batch_size=8", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_epochs=2", "metrics=none",
    "callbacks.tta_evaluation=null", "logger=none",
]  # fmt: skip
WRAPPER = """#!/bin/bash
export SLURM_NODEID=$SLURM_PROCID SLURM_LOCALID=0 SLURM_NNODES=2 SLURM_NTASKS_PER_NODE=1
exec {python} "$@" trainer.devices=1 ++trainer.num_nodes=2
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("sinfo") is None and "HSL_SLURM" not in os.environ,
        reason="no SLURM on this machine; `bash .ci/run slurm` starts one",
    ),
]


def test_two_nodes_leave_one_run_with_the_scores_of_one_process(tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(WRAPPER.format(python=sys.executable))
    wrapper.chmod(0o755)
    options = ["--parsable", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--mem=3G"]
    log = tmp_path / "job.log"
    words = [*TINY, f"data.root={tmp_path}/data", f"output_root={tmp_path}/outputs"]
    submitted = subprocess.run(
        ["sbatch", *options, f"--output={log}", "slurm/multi_node.sbatch", *words],
        cwd=ROOT, env={**os.environ, "HSL_PYTHON": str(wrapper), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    job, deadline = submitted.stdout.strip(), time.monotonic() + PATIENCE_S
    try:
        while "JobState=COMPLETED" not in (shown := _shown(job)):
            assert time.monotonic() < deadline, shown + log.read_text()
            assert "JobState=FAILED" not in shown, log.read_text()
            time.sleep(1)
    finally:
        subprocess.run(["scancel", job], check=False)
    (folder,) = (tmp_path / "outputs").glob("*/fold0/2*")
    assert json.loads((folder / "provenance.json").read_text())["status"] == "finished"
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in history] == ["0", "1"]
    scores = json.loads((folder / "metrics.json").read_text())["parts"]["val"]["plain"]
    assert scores["miou"] == pytest.approx(max(float(row["val/miou"]) for row in history), abs=1e-6)
    done = subprocess.run(
        [sys.executable, "-c", "from hsl.cli import main; main()", "evaluate", f"run={folder}"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = json.loads((folder / "evaluations" / "plain" / "metrics.json").read_text())["parts"]
    one, two = (np.array(page["confusion"]) for page in (alone["val"]["plain"], scores))
    np.testing.assert_array_equal(one.sum(axis=1), two.sum(axis=1))  # every labelled pixel once
    assert np.abs(one - two).sum() <= 1e-4 * one.sum()  # a tie may fall otherwise in a batch of another size


def _shown(job: str) -> str:
    return subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=False).stdout
