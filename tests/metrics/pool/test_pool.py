import functools
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.files.row_file import read_rows
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.failures import object_failures
from hsl.metrics.objects.panoptic import panoptic_counts
from hsl.metrics.objects.surface import surface_distances
from hsl.metrics.pool.pool import MetricPool, PoolSummary, count_workers
from hsl.metrics.pool.process import SLOTS
from hsl.metrics.pool.slot import Slot
from hsl.metrics.pool.worker import json_ready

TIER_2 = {
    "surface": functools.partial(surface_distances, num_classes=3),
    "panoptic": functools.partial(panoptic_counts, num_classes=3),
    "failures": functools.partial(object_failures, num_classes=3),
    "clustering": clustering_scores,
}
METRICS = """
    import os, signal, sys, time
    from pathlib import Path

    def total(prediction, target):
        return {"total": int(prediction.sum()), "nothing": float("nan")}

    def slow(prediction, target):
        time.sleep(0.1)
        return int(prediction.sum())

    def picky(prediction, target):
        if prediction[0, 0] == 2:
            raise RuntimeError("two is too many")
        return {"value": 1.0}

    def infinite(prediction, target):
        return float("inf")

    def deadly(prediction, target):
        if prediction[0, 0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def deadly_once(prediction, target, folder):
        flag = Path(folder) / "died"
        if prediction[0, 0] == 2 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return int(prediction.sum())

    def with_instances(prediction, target, target_instances):
        return int(target_instances.max())

    def writes(prediction, target):
        prediction[0, 0] = 9

    def modules(prediction, target):
        return [name for name in ("torch", "lightning", "omegaconf", "pytest") if name in sys.modules]
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Metrics of a module that lies outside the package: the workers find it by the parent's `sys.path`."""
    (tmp_path / "faulty_metrics.py").write_text(textwrap.dedent(METRICS))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faulty_metrics", raising=False)
    import faulty_metrics

    return faulty_metrics


def pictures(number: int = 12) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Pictures of odd and growing sizes, with ignored pixels; the first pixel of number 5 is 2."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(number):
        target = rng.integers(0, 3, (5 + 2 * index, 7 + index))
        prediction = np.where(rng.random(target.shape) < 0.7, target, 1)
        prediction[0, 0] = 2 if index == 5 else 1
        target[-1] = 255
        found.append((f"tile_{index:02d}", prediction, target))
    return found


def run(path: Path, metrics: dict[str, Callable], workers: int = 2, **options: Any) -> PoolSummary:
    with MetricPool(path, metrics, workers=workers, **options) as pool:
        for id, prediction, target in pictures():
            pool.submit(id, prediction, target)
    return pool.close()


def by_id(path: Path) -> dict[str, dict]:
    return {row["id"]: row for row in read_rows(path)}


def test_equals_calling_the_metrics(tmp_path: Path) -> None:
    summary = run(tmp_path / "rows.jsonl", TIER_2)
    assert summary == PoolSummary(tmp_path / "rows.jsonl", 12, 0, (), 0)
    rows = by_id(tmp_path / "rows.jsonl")
    assert list(rows) == [id for id, _, _ in pictures()]
    for id, prediction, target in pictures():
        expected = {name: metric(prediction, target) for name, metric in TIER_2.items()}
        assert rows[id]["metrics"] == json_ready(expected)
        assert rows[id]["errors"] == {}
        assert rows[id]["part"] == "test"


def test_the_file_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    contents = []
    for workers in (1, 3):
        run(tmp_path / f"{workers}.jsonl", TIER_2, workers)
        contents.append((tmp_path / f"{workers}.jsonl").read_bytes())
    assert contents[0] == contents[1]
    assert b"NaN" not in contents[0]


def test_a_killed_worker_is_replaced_and_its_pictures_are_done(tmp_path: Path, faults: Any) -> None:
    with MetricPool(tmp_path / "rows.jsonl", {"slow": faults.slow}, workers=2) as pool:
        for index, (id, prediction, target) in enumerate(pictures()):
            pool.submit(id, prediction, target)
            if index in (3, 6):
                os.kill(pool.worker_pids[index % 2], signal.SIGKILL)
    assert pool.close().num_replaced == 2
    rows = by_id(tmp_path / "rows.jsonl")
    assert {id: row["metrics"]["slow"] for id, row in rows.items()} == {id: int(p.sum()) for id, p, _ in pictures()}


def test_a_worker_killed_before_it_began_is_replaced(tmp_path: Path, faults: Any) -> None:
    with MetricPool(tmp_path / "rows.jsonl", {"total": faults.total}, workers=1) as pool:
        os.kill(pool.worker_pids[0], signal.SIGKILL)
        for id, prediction, target in pictures(4):
            pool.submit(id, prediction, target)
    assert pool.close().num_pictures == 4


def test_a_metric_that_dies_once_is_done_again(tmp_path: Path, faults: Any) -> None:
    metric = functools.partial(faults.deadly_once, folder=str(tmp_path))
    summary = run(tmp_path / "rows.jsonl", {"it": metric})
    assert (summary.num_pictures, summary.failed, summary.num_replaced) == (12, (), 1)
    assert by_id(tmp_path / "rows.jsonl")["tile_05"]["metrics"]["it"] == int(pictures()[5][1].sum())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_always_kills_becomes_an_error(tmp_path: Path, faults: Any, workers: int) -> None:
    summary = run(tmp_path / "rows.jsonl", {"deadly": faults.deadly}, workers)
    assert (summary.num_pictures, summary.failed, summary.num_replaced) == (12, (("test", "tile_05"),), 3)
    row = by_id(tmp_path / "rows.jsonl")["tile_05"]
    assert row["metrics"] == {}
    assert "exit code -9" in row["errors"]["worker"]["message"]


def test_an_exception_is_a_record_and_no_score(tmp_path: Path, faults: Any) -> None:
    summary = run(tmp_path / "rows.jsonl", {"picky": faults.picky, "total": faults.total})
    assert summary.failed == (("test", "tile_05"),)
    assert summary.num_pictures == 12
    row = by_id(tmp_path / "rows.jsonl")["tile_05"]
    assert row["errors"]["picky"]["type"] == "RuntimeError"
    assert row["errors"]["picky"]["message"] == "two is too many"
    assert "in picky" in row["errors"]["picky"]["traceback"]
    assert list(row["metrics"]) == ["total"]
    assert row["metrics"]["total"]["nothing"] is None
    assert "0.0" not in json.dumps(row)


def test_what_is_no_score_is_an_error(tmp_path: Path, faults: Any) -> None:
    summary = run(tmp_path / "rows.jsonl", {"infinite": faults.infinite, "writes": faults.writes})
    assert len(summary.failed) == 12
    errors = by_id(tmp_path / "rows.jsonl")["tile_00"]["errors"]
    assert "finite" in errors["infinite"]["message"]
    assert "read-only" in errors["writes"]["message"]


def test_workers_import_no_torch_and_not_the_main_script(tmp_path: Path, faults: Any) -> None:
    assert "pytest" in sys.modules
    run(tmp_path / "rows.jsonl", {"modules": faults.modules, **TIER_2})
    assert all(row["metrics"]["modules"] == [] for row in read_rows(tmp_path / "rows.jsonl"))


def test_further_arrays_reach_the_metrics_that_name_them(tmp_path: Path, faults: Any) -> None:
    metrics = {"it": faults.with_instances, "panoptic": TIER_2["panoptic"], "total": faults.total}
    labels, ids = np.ones((4, 6), int), np.arange(24).reshape(4, 6) // 12 + 70000
    with MetricPool(tmp_path / "rows.jsonl", metrics, workers=1) as pool:
        pool.submit("a", labels, labels, target_instances=ids)
    found = by_id(tmp_path / "rows.jsonl")["a"]["metrics"]
    assert found["it"] == 70001
    assert found["panoptic"]["fn"] == [0, 2, 0]


def test_the_arrays_may_change_after_submit(tmp_path: Path, faults: Any) -> None:
    labels = np.zeros((3, 3), np.uint8)
    with MetricPool(tmp_path / "rows.jsonl", {"total": faults.total}, workers=1) as pool:
        for value in range(1, 9):
            labels[:] = value
            pool.submit(str(value), labels, labels)
            labels[:] = 0
    totals = [row["metrics"]["total"]["total"] for row in read_rows(tmp_path / "rows.jsonl")]
    assert totals == [9 * value for value in range(1, 9)]


def test_submit_waits_for_a_free_place(tmp_path: Path, faults: Any) -> None:
    with MetricPool(tmp_path / "rows.jsonl", {"slow": faults.slow}, workers=1) as pool:
        for index, (id, prediction, target) in enumerate(pictures(SLOTS + 3)):
            pool.submit(id, prediction, target)
            pool.poll()
            written = len((tmp_path / "rows.jsonl").read_text().splitlines())
            assert index + 1 - written <= SLOTS


def test_lines_arrive_without_a_further_submit(tmp_path: Path, faults: Any) -> None:
    with MetricPool(tmp_path / "rows.jsonl", {"total": faults.total}, workers=1) as pool:
        pool.submit(*pictures()[0])
        for _ in range(600):
            pool.poll()
            if (tmp_path / "rows.jsonl").stat().st_size:
                break
            time.sleep(0.05)
        assert len(by_id(tmp_path / "rows.jsonl")) == 1


def test_parts_keep_the_same_id_apart_and_the_file_is_sorted(tmp_path: Path, faults: Any) -> None:
    with MetricPool(tmp_path / "rows.jsonl", {"total": faults.total}, workers=2) as pool:
        for part in ("val", "test"):
            for id, prediction, target in pictures(3)[::-1]:
                pool.submit(id, prediction, target, part=part)
    keys = [(row["part"], row["id"]) for row in read_rows(tmp_path / "rows.jsonl")]
    assert keys == sorted(keys)
    assert len(keys) == 6


def test_an_exception_in_the_parent_keeps_the_lines(tmp_path: Path, faults: Any) -> None:
    path = tmp_path / "rows.jsonl"
    pids = []

    def interrupted() -> None:
        with MetricPool(path, {"slow": faults.slow}, workers=2) as pool:
            pids.extend(pool.worker_pids)
            for id, prediction, target in pictures(2 * SLOTS + 6):
                pool.submit(id, prediction, target)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    rows = by_id(path)
    assert 0 < len(rows) < 2 * SLOTS + 6
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_resume_does_only_the_rest(tmp_path: Path, faults: Any) -> None:
    path, whole = tmp_path / "rows.jsonl", tmp_path / "whole.jsonl"
    run(whole, {"total": faults.total})
    lines = whole.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:30])  # a line cut off by a kill
    assert len(by_id(path)) == 7
    summary = run(path, {"total": faults.total}, resume=True)
    assert (summary.num_pictures, summary.num_resumed) == (12, 7)
    assert path.read_bytes() == whole.read_bytes()


def test_resume_does_again_what_changed_or_failed(tmp_path: Path, faults: Any) -> None:
    path = tmp_path / "rows.jsonl"
    run(path, {"it": faults.picky})
    with MetricPool(path, {"it": faults.picky}, workers=2, resume=True) as pool:
        done = [pool.submit(id, p, np.zeros_like(t) if id == "tile_02" else t) for id, p, t in pictures()]
    assert [index for index, new in enumerate(done) if new] == [2, 5]
    assert pool.close().num_pictures == 12
    assert pool.close().failed == (("test", "tile_05"),)
    summary = run(path, {"it": faults.picky, "total": faults.total}, resume=True)
    assert (summary.num_pictures, summary.num_resumed) == (12, 0)
    assert len(by_id(path)) == 12


def test_an_interrupt_while_closing_stops_the_workers(
    tmp_path: Path, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: MetricPool) -> None:
        raise KeyboardInterrupt

    pool = MetricPool(tmp_path / "rows.jsonl", {"slow": faults.slow}, workers=1)
    pid = pool.worker_pids[0]
    monkeypatch.setattr(MetricPool, "close", interrupt)
    with pytest.raises(KeyboardInterrupt), pool:
        pool.submit(*pictures()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


KILLED = """
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell is born deaf to it
    sys.path.insert(0, {folder!r})
    import numpy as np
    import faulty_metrics
    from hsl.metrics.pool.pool import MetricPool
    with MetricPool({path!r}, {{"slow": faulty_metrics.slow}}, workers=2) as pool:
        print(*pool.worker_pids, flush=True)
        child = os.fork()  # as a DataLoader does: it keeps the pool's ends of the pipes open
        if child == 0:
            os.closerange(1, 3)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pause()
        print(child, flush=True)
        for index in range(40):
            pool.submit(str(index), np.full((4, 4), 1), np.zeros((4, 4), int))
            if index == 24:
                os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize(
    "name", ["SIGKILL", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT"))]
)
def test_a_killed_parent_leaves_valid_lines_and_no_workers(tmp_path: Path, faults: Any, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    script = textwrap.dedent(KILLED).format(folder=str(tmp_path), path=str(path), signal=name)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == -getattr(signal, name)
    before = by_id(path)
    assert 0 < len(before) <= 25
    *pids, child = (int(pid) for pid in ended.stdout.split())
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    with MetricPool(path, {"slow": faults.slow}, workers=2, resume=True) as pool:
        for index in range(30):
            pool.submit(str(index), np.full((4, 4), 1), np.zeros((4, 4), int))
    assert pool.close().num_resumed == len(before)
    assert len(by_id(path)) == 30


def test_errors_of_the_arguments(tmp_path: Path, faults: Any) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="functions of a module"):
        MetricPool(path, {"it": lambda prediction, target: 0})
    for workers in (0, -1, 1.5, True, "two"):
        with pytest.raises(ValueError, match="`workers` should be 'auto' or an integer"):
            MetricPool(path, {}, workers=workers)
    assert not path.exists()
    labels = np.zeros((2, 2), int)
    with MetricPool(path, {"total": faults.total}, workers=1) as pool:
        pool.submit("a", labels, labels)
        with pytest.raises(ValueError, match="once per part"):
            pool.submit("a", labels, labels)
        with pytest.raises(ValueError, match="of one size"):
            pool.submit("b", labels, labels[:1])
    with pytest.raises(ValueError, match="Found it closed"):
        pool.submit("c", labels, labels)
    with pytest.raises(ValueError, match="`path` should not exist yet"):
        MetricPool(path, {"total": faults.total})


def test_a_metric_that_the_workers_cannot_import_is_told(tmp_path: Path, faults: Any) -> None:
    (tmp_path / "faulty_metrics.py").unlink()
    with pytest.raises(RuntimeError, match=r"cannot load the metrics(?s:.*)faulty_metrics"):
        run(tmp_path / "rows.jsonl", {"total": faults.total})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    row = '{"id":"a","part":"test","checksum":"","metrics":{},"errors":{}}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(row + "nonsense\n" + row)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2, is no row"):
        list(read_rows(path))
    path.write_text(row + row)
    with pytest.raises(DataError, match="line 2, holds 'a'"):
        list(read_rows(path))


def test_count_workers() -> None:
    assert count_workers("auto") == max(1, len(os.sched_getaffinity(0)) - 1)
    assert count_workers(5) == 5


def test_plain_refuses_what_json_cannot_hold() -> None:
    assert json_ready({1: (np.float32(0.5), math.nan, None, True)}) == {"1": [0.5, None, None, True]}
    with pytest.raises(ValueError, match="finite"):
        json_ready([math.inf])
    with pytest.raises(TypeError, match="set"):
        json_ready({1})


def test_a_slot_grows_and_is_seen_through_its_descriptor() -> None:
    mine = Slot()
    other = Slot(os.dup(mine.descriptor))
    for side in (3, 0, 200, 5):
        arrays = {"a": np.full((side, 7), 3, np.uint8), "b": np.arange(side * 2).reshape(side, 2)[:, ::-1]}
        found = other.read(mine.write(arrays))
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    mine.close()
    other.close()
