"""A sweep on a real Ray of two nodes, one of which is killed while it trains."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.extras, pytest.mark.timeout(420)]

ROOT = Path(__file__).parents[3]
TINY = [
    "encoder=mobilenetv3_small", "encoder.weights=null", "data.reader.num_pictures=40", "data.image_size=64",
    "data.batch_size=8", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.max_epochs=12",
    "callbacks.tta_evaluation=null", "callbacks.early_stopping=null", "metrics=none", "logger=none",
]  # fmt: skip
ENVIRONMENT = {
    **os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(ROOT / "src"), "OMP_WAIT_POLICY": "passive",
}  # fmt: skip
SMALL = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000", "--include-dashboard=false", "--block"]


def node(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """A node of a cluster, in a group of processes of its own."""
    words = (*words, *SMALL)
    words = words if "--head" in words else tuple(word for word in words if "dashboard" not in word)
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *words]
    with (folder / "ray.log").open("ab") as log:
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)


def ended(nodes: list[subprocess.Popen[bytes]]) -> None:
    for one in nodes:
        for pid in (*descendants(one.pid), one.pid):
            kill(pid)
        one.wait()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Processes below one, the deepest first."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    children = [child for child, parent in parents.items() if parent == pid]
    return [one for child in children for one in (*descendants(child), child)]


def number_of_the_run(pids: list[int], logs: Path) -> str | None:
    """The number of the run that one of the processes writes the log of."""
    for pid in pids:
        try:
            target = Path(f"/proc/{pid}/fd/1").readlink()
        except OSError:
            continue
        if target.parent == logs:
            return target.stem
    return None


def wait(what: str, condition: Callable[[], Any], seconds: float = 180) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"no {what} within {seconds} s"
        time.sleep(0.1)
    return value


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a cluster of two nodes with one CPU each, and the nodes."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, nodes = f"127.0.0.1:{port}", []
    try:
        nodes.append(node(tmp_path, "--head", "--node-ip-address=127.0.0.1", f"--port={port}"))
        wait("head", lambda: answers(port))
        nodes.append(node(tmp_path, f"--address={address}", "--node-ip-address=127.0.0.1"))
        log = tmp_path / "ray.log"
        wait("second node", lambda: log.read_text().count("Ray runtime started") == 2)
        yield address, nodes
    finally:
        ended(nodes)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_what_a_killed_node_ran_is_done_again_and_nothing_twice(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    address, (_, second) = cluster
    launcher = [f"hydra.launcher.{key}" for key in (f"address={address}", "num_cpus=1", "num_gpus=0")]
    words = [*TINY, "fold=0,1,2,7", "seed=0"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hydra/launcher=ray", *launcher, *words]
    outputs = tmp_path / "outputs"
    with (tmp_path / "sweep.log").open("wb") as log:
        sweep = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)
    logs = wait("sweep", lambda: next(iter(outputs.glob(".sweeps/*")), None))
    number = wait("run on the second node", lambda: under_way(second.pid, logs))
    begun = outputs.glob(f"segmentation-mobilenetv3_small/fold{number}/*")
    folder = next(begun)
    for pid in (*descendants(second.pid)[::-1], second.pid):
        kill(pid)  # as where a machine loses its power
    second.wait()
    assert sweep.wait(240) == 2  # of fold 7, which there is not

    told = (tmp_path / "sweep.log").read_text()
    assert f"#{number} fold={number}: its machine or Ray worker died; it goes on elsewhere" in told
    assert told.count("goes on elsewhere") == 1
    assert "#3 fold=7: error: `fold` should be in [0, 3). Found `fold = 7`." in told
    folders = sorted(outputs.glob("segmentation-mobilenetv3_small/fold*/[!.]*"))
    assert [one.parent.name for one in folders] == ["fold0", "fold1", "fold2"]
    assert folder in folders  # it went on in its own
    for one in folders:
        assert json.loads((one / "provenance.json").read_text())["status"] == "finished"
        rows = (one / "history.csv").read_text().splitlines()[1:]
        assert [int(row.split(",")[0]) for row in rows] == list(range(12))


def under_way(pid: int, logs: Path) -> str | None:
    """The run of a node, once it has an epoch behind it."""
    number = number_of_the_run(descendants(pid), logs)
    log = logs / f"{number}.log"
    return number if number is not None and "epoch 2/12" in log.read_text() else None
