"""A study in PostgreSQL: Debian's server, started by the test on a socket of its own."""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hsl.errors import ConfigError
from hsl.verbs.study.pages.showing import is_done
from hsl.verbs.study.spaces import as_json, read_space
from hsl.verbs.study.stored_study import new_study, write_study
from hsl.verbs.study.study_storage import open_storage
from hsl.verbs.study.trials import next_trial

pytestmark = pytest.mark.extras
SPACE = read_space({"x": {"low": 0, "high": 10_000}})
STORED = new_study(
    name="s", words=[], monitor="val/miou", mode="max", objectives=["score"], folds=[0], space=as_json(SPACE)
)


def program(name: str) -> str:
    """Debian keeps the server's programs apart."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    assert found, f"`{name}` should be there: apt-get install postgresql"
    return found


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an empty database."""
    folder = Path("/tmp") / f"hsl-pg-{os.getpid()}"  # the path of a socket may have 107 characters
    folder.mkdir()
    whose = {} if os.getuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}  # it refuses root
    if whose:
        shutil.chown(folder, "postgres", "postgres")
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, **whose}
    try:
        subprocess.run([program("initdb"), "--auth=trust", "--username=hsl", "-D", "data"], check=True, **options)
        words = ["-D", "data", "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        running = subprocess.Popen([program("postgres"), *words], stderr=subprocess.DEVNULL, **options)
        stop = time.monotonic() + 30
        while not list(folder.glob(".s.PGSQL.*[0-9]")) and time.monotonic() < stop:
            time.sleep(0.05)
        yield f"postgresql+psycopg://hsl@/postgres?host={folder}"
        running.send_signal(signal.SIGINT)
        running.wait(30)
    finally:
        shutil.rmtree(folder)


def work(folder: Path, url: str, done: Path, pace: float) -> None:
    study = open_storage(folder, STORED, url, optuna.samplers.TPESampler(constant_liar=True))
    while claimed := next_trial(study, folder, STORED.id, SPACE, SPACE, 12):
        time.sleep(pace)
        study.tell(claimed.trial, float(claimed.point["x"]))
        with done.open("a") as file:
            file.write(f"{claimed.trial.number}\n")
        claimed.release()


def test_workers_that_are_killed_share_a_study_in_postgresql(server: str, tmp_path: Path) -> None:
    write_study(tmp_path, STORED)
    done, context = tmp_path / "done", multiprocessing.get_context("fork")  # before this process has a connection
    done.touch()
    workers: list[multiprocessing.process.BaseProcess] = []
    kills, stop = 0, time.monotonic() + 200
    while len(done.read_text().split()) < 12 and time.monotonic() < stop:
        workers = [one for one in workers if one.is_alive()]
        while len(workers) < 2:
            workers.append(context.Process(target=work, args=(tmp_path, server, done, 0.5)))
            workers[-1].start()
        finished = len(done.read_text().split())
        if kills < 4 and finished > 2 * kills:  # one after every second trial, in the middle of something
            os.kill(workers[kills % 2].pid or 0, signal.SIGKILL)
            kills += 1
        time.sleep(0.1)
    for one in workers:
        one.join(60)
    study = open_storage(tmp_path, STORED, server)
    assert kills == 4
    assert is_done(study, 12)
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.number for trial in complete) == list(range(12))
    assert len({trial.params["x"] for trial in complete}) == 12
    other = STORED.model_copy(update={"words": ["experiment=steel"]})
    with pytest.raises(ConfigError, match="holds a study `s` already"):
        open_storage(tmp_path, other, server)
    with pytest.raises(ConfigError, match=r"should be a storage that can be reached .* Start the server") as told:
        open_storage(tmp_path, STORED, server.replace("hsl@/", "hsl:secret@/").replace("hsl-pg", "nowhere"))
    assert "secret" not in str(told.value)
    del study, told
    with warnings.catch_warnings():  # connections of a study end with its process
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
