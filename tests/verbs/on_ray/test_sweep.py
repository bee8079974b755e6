"""Settings, room and retries of a sweep on Ray, without Ray. The real one is in `test_killed_node.py`."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hsl.errors import ConfigError, DataError
from hsl.files.locks import BusyError
from hsl.signals import Interrupted, Listener
from hsl.verbs.on_ray import cluster, sweep, worker

CONFIG = Path(__file__).parents[3] / "conf/hydra/launcher/ray.yaml"


def given(**changes: Any) -> dict[str, Any]:
    settings: Any = {**OmegaConf.load(CONFIG), **changes}
    settings.pop("_target_")
    return settings


@pytest.fixture
def _with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "needs", lambda *_: None)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsl.errors.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"`hydra/launcher=ray` needs ray. Found no `ray`. .*`pip install 'hsl\[ray\]'`"
    ):
        cluster.read_settings(given())


@pytest.mark.usefixtures("_with_ray")
def test_every_wrong_setting_is_told_at_once() -> None:
    wrong = {"num_cpus": -1, "num_gpus": 1.5, "memory_gb": "much", "resources": {"tpu": True}, "max_starts": 0,
             "other_code": 1, "address": "ray://head:10001"}  # fmt: skip
    with pytest.raises(ConfigError) as told:
        cluster.read_settings(given(**wrong))
    for key in (*wrong, "resources.tpu"):
        assert f"`hydra.launcher.{key}" in str(told.value), key
    with pytest.raises(ConfigError, match=r"resources` should be names and numbers, .* Found `3`"):
        cluster.read_settings(given(resources=3))


@pytest.mark.usefixtures("_with_ray")
@pytest.mark.parametrize("address", [None, "auto", "10.0.0.1:6379", "head:6379"])
def test_what_a_run_takes_is_what_ray_is_asked_for(address: str | None) -> None:
    settings = cluster.read_settings(given(address=address, num_gpus=0.5, memory_gb=2, resources={"fast": 1}))
    assert settings.wanted == {"CPU": 4, "GPU": 0.5, "memory": 2 * 2**30, "fast": 1}
    assert {key: settings.options[key] for key in ("num_cpus", "num_gpus", "memory", "resources", "max_retries")} == {
        "num_cpus": 4, "num_gpus": 0.5, "memory": 2 * 2**30, "resources": {"fast": 1}, "max_retries": 0,
    }  # fmt: skip


@pytest.mark.usefixtures("_with_ray")
def test_a_run_that_no_machine_has_room_for_is_told() -> None:
    settings = cluster.read_settings(given(memory_gb=8))
    gib = 2.0**30
    many, large = {"CPU": 8.0, "memory": 8 * gib}, {"CPU": 2.0, "GPU": 1.0, "memory": 4 * gib}
    assert cluster.lacking(settings, [many, {**many, "GPU": 1.0}]) is None
    assert cluster.lacking(settings, [large]) == (
        "hydra.launcher.num_cpus = 4, where the largest machine has 2; "
        "hydra.launcher.memory_gb = 8, where the largest machine has 4"
    )
    assert "no machine has together" in str(cluster.lacking(settings, [many, large]))
    assert "has 0" in str(cluster.lacking(settings, []))


def test_an_address_that_does_not_answer_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"Found `127.0.0.1:1`, which does not answer .* Start it with `ray start --head`"
    ):
        cluster._check_reachable("127.0.0.1", 1)


class FakeRay:
    """A Ray whose tasks end as they are told: each entry is a value or an error."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        def __init__(self, cause: Exception) -> None:
            super().__init__(str(cause))
            self.cause = cause

    class WorkerCrashedError(RayError):
        pass

    class NodeDiedError(RayError):
        pass

    class LocalRayletDiedError(RayError):
        pass

    class ObjectLostError(RayError):
        pass

    def __init__(self, ends: dict[int, list[Any]], having: dict[str, float]) -> None:
        self.exceptions = FakeRay
        self.ends, self.having, self.started, self.cancelled = ends, having, [], []

    def remote(self, **options: Any) -> Any:
        return lambda run: SimpleNamespace(remote=self._start)

    def _start(self, job: Any) -> Any:
        self.started.append(job)
        return job, len(self.started)

    def nodes(self) -> list[Any]:
        return [{"Alive": True, "Resources": self.having}, {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}]

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        ready = [one for one in references if self.ends[one[0].number]]
        return ready[:1], references

    def get(self, reference: Any) -> Any:
        end = self.ends[reference[0].number].pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference[0].number)


def done(ends: dict[int, list[Any]], having: dict[str, float] | None = None) -> tuple[FakeRay, dict[int, Any]]:
    ray = FakeRay(ends, having or {"CPU": 8.0, "GPU": 1.0})
    jobs = SimpleNamespace(job=lambda planned: planned, log=lambda planned: f"{planned.number}.log")
    one: Any = sweep._Sweep(ray, cluster.read_settings(given(max_starts=3)), jobs)  # type: ignore[arg-type]
    for number in ends:
        planned = sweep.Planned(number, (f"fold={number}",), (f"fold={number}",))
        one.start(planned, planned)
    one.wait()
    one.end()
    return ray, one.done


@pytest.mark.usefixtures("_with_ray")
def test_only_what_a_machine_lost_is_started_again(capsys: pytest.CaptureFixture[str]) -> None:
    lost = [FakeRay.NodeDiedError("node"), FakeRay.WorkerCrashedError("worker"), FakeRay.ObjectLostError("value")]
    failed = FakeRay.RayTaskError(DataError("`fold` should be lower."))
    ray, ends = done({0: [*lost[:2], 0.5], 1: [failed], 2: [*lost], 3: [FakeRay.RayTaskError(ImportError("no hsl"))]})
    assert sorted((job.number, job.start) for job in ray.started) == [
        (0, 1), (0, 2), (0, 3), (1, 1), (2, 1), (2, 2), (2, 3), (3, 1),
    ]  # fmt: skip
    assert [ends[number].status for number in range(4)] == [JobStatus.COMPLETED, *[JobStatus.FAILED] * 3]
    assert ends[0].return_value == 0.5
    told = capsys.readouterr()
    assert "#0 fold=0: 0.5000" in told.out
    assert "#1 fold=1: error: `fold` should be lower." in told.err
    assert "died 3 times" in told.err
    assert "#3 fold=3: error: Every machine should have hsl and its packages" in told.err
    with pytest.raises(DataError, match="`fold` should be lower"):
        _ = ends[1].return_value


@pytest.mark.usefixtures("_with_ray")
def test_a_sweep_does_not_wait_for_ever_for_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "WAIT_S", 0.0)
    ray, ends = done({0: [0.5], 1: []}, {"CPU": 8.0})
    assert ends[0].return_value == 0.5
    assert ray.cancelled == [1]
    with pytest.raises(DataError, match=r"num_gpus = 1, where the largest machine has 0, since another died"):
        _ = ends[1].return_value


@pytest.mark.usefixtures("_with_ray")
def test_a_signal_lets_the_runs_save(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Listener()
    heard.number = signal.SIGTERM
    monkeypatch.setattr(sweep, "listener", lambda: heard)
    ray = FakeRay({0: []}, {"CPU": 8.0, "GPU": 1.0})
    jobs = SimpleNamespace(job=lambda planned: planned, log=lambda planned: f"{planned.number}.log")
    one: Any = sweep._Sweep(ray, cluster.read_settings(given()), jobs)  # type: ignore[arg-type]
    planned = sweep.Planned(0, (), ())
    one.start(planned, planned)
    with pytest.raises(Interrupted) as ended:
        one.wait()
    one.end()
    assert ended.value.code == 143
    assert ray.cancelled == [0]


def test_a_machine_with_another_code_or_without_the_folder_refuses(tmp_path: Path) -> None:
    job = worker.Job(b"", "train.py", str(tmp_path / "nowhere"), "0.log", "0.0+beef", again=False, variables={})
    with pytest.raises(DataError, match=r"should have hsl 0.0\+beef. Found hsl .* Give all the same"):
        worker.run(job)
    job = worker.Job(b"", "train.py", str(tmp_path / "nowhere"), "0.log", None, again=False, variables={})
    with pytest.raises(DataError, match=r"nowhere`, where the sweep was started. Found No such file .* shared storage"):
        worker.run(job)


def test_what_is_begun_again_waits_for_the_folder_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOOK_S", 0.0)
    busy, free = JobReturn(status=JobStatus.FAILED), JobReturn(status=JobStatus.COMPLETED)
    busy.return_value, free.return_value = BusyError("another process runs in it"), 0.5
    ends = [busy, busy, free]
    assert worker._patiently(lambda: ends.pop(0), 10.0) is free
    assert worker._patiently(lambda: busy, 0.0) is busy


def test_only_words_that_tell_runs_apart_are_shown() -> None:
    plan = sweep._plan([["encoder=a", "fold=0", "x=1"], ["encoder=a", "fold=1", "x=1"]], 4)
    assert [one.name for one in plan] == ["#4 fold=0", "#5 fold=1"]
    assert sweep._plan([["fold=0"]], 0)[0].name == "#0 fold=0"
