"""How a run ended, how long it took, and what it was."""

import hashlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hsl.callbacks import provenance
from hsl.callbacks.provenance import Provenance
from hsl.files.energy import Reading
from hsl.run_folder.provenance import read_provenance


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the test moves, and an environment that is not asked for."""
    clock = Clock()
    monkeypatch.setattr(provenance, "time", clock)
    monkeypatch.setattr(provenance, "run_environment", lambda: {"python": "3.x"})
    return clock


def page(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def fit_trainer(device: str = "cpu", **more: Any) -> SimpleNamespace:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), world_size=2, **more)


def test_running_then_finished(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "provenance.json"
    record = Provenance(tmp_path, {"seed": 3})
    with record.recording():
        assert (page(path)["status"], page(path)["finished"]) == ("running", None)
        clock.now += 5
    facts = page(path)
    assert (facts["status"], facts["wall_time_s"], facts["seed"], facts["python"]) == ("finished", 5.0, 3, "3.x")
    assert facts["started"] <= facts["finished"]
    assert "error" not in facts


def test_failed_names_the_error(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "provenance.json"
    with pytest.raises(ZeroDivisionError), Provenance(tmp_path, {}).recording():
        raise ZeroDivisionError("by nothing")
    facts = page(path)
    assert (facts["status"], facts["finished"]) == ("failed", None)
    assert facts["error"] == "ZeroDivisionError: by nothing"


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit, SIGTERMException])
def test_a_signal_interrupts(
    tmp_path: Path, clock: Clock, signal: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "provenance.json"
    with pytest.raises(signal), Provenance(tmp_path, {}).recording():
        raise signal
    assert page(path)["status"] == "interrupted"
    assert capsys.readouterr().err == f"! Interrupted. The same command with `resume=last` goes on: {tmp_path}\n"
    assert page(path)["finished"] is None


def test_wall_time_adds_up_over_resumes(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "provenance.json"
    for name, seconds in (("first", 10), ("second", 2.5)):
        monkeypatch.setattr(provenance, "_now", lambda name=name: name)
        with Provenance(tmp_path, {}).recording():
            clock.now += seconds
        clock.now += 100  # waiting in the queue is no wall time
    facts = page(path)
    assert facts["wall_time_s"] == 12.5
    assert (facts["started"], facts["finished"]) == ("first", "second")


def test_a_killed_run_still_tells_its_time(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "provenance.json"
    record = Provenance(tmp_path, {})
    clock.now += 7
    record.on_train_epoch_end(SimpleNamespace(is_global_zero=False), None)  # type: ignore[arg-type]
    assert not path.exists()
    record.on_train_epoch_end(SimpleNamespace(is_global_zero=True), None)  # type: ignore[arg-type]
    assert (page(path)["status"], page(path)["wall_time_s"]) == ("running", 7.0)


def test_a_failure_that_was_overcome_leaves_no_error(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps({"status": "failed", "error": "OSError: full", "started": "then", "seed": 1}))
    with Provenance(tmp_path, {"seed": 2}).recording():
        pass
    facts = page(path)
    assert "error" not in facts
    assert (facts["started"], facts["seed"]) == ("then", 2)


def test_the_facts_ride_in_the_checkpoint(tmp_path: Path, clock: Clock) -> None:
    checkpoint: dict[str, Any] = {"epoch": 4}
    record = Provenance(tmp_path, {"seed": 3, "split_sha256": "ab"})
    record.on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
    saved = checkpoint["provenance"]
    assert checkpoint["epoch"] == 4
    assert (saved["seed"], saved["split_sha256"], saved["python"]) == (3, "ab", "3.x")
    assert saved["started"] <= saved["saved"]


def test_no_file_no_facts(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) == {}


def test_without_git_the_state_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(provenance, "subprocess", SimpleNamespace(run=missing))
    facts = provenance.run_environment()
    assert facts["git"] == {"commit": None, "dirty": None}
    assert set(facts["packages"]) == set(provenance.PACKAGES)
    json.dumps(facts)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ("", {"commit": "abc", "dirty": False}),
        (" M file\n", {"commit": "abc", "dirty": True}),
        (None, {"commit": None, "dirty": None}),  # no repository
    ],
)
def test_git_state(monkeypatch: pytest.MonkeyPatch, changes: str | None, state: dict[str, Any]) -> None:
    def run(command: list[str], **_: Any) -> Any:
        if changes is None:
            return SimpleNamespace(returncode=128, stdout="")
        return SimpleNamespace(returncode=0, stdout="abc\n" if "rev-parse" in command else changes)

    monkeypatch.setattr(provenance, "subprocess", SimpleNamespace(run=run))
    assert provenance.run_environment()["git"] == state


def packages(*pairs: tuple[str | None, str]) -> list[Any]:
    return [SimpleNamespace(metadata={"Name": name, "Version": version}) for name, version in pairs]


def test_cuda_and_a_hash_of_everything_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, case, dashes, folders without a name and one that is listed twice make no difference; a version does."""
    monkeypatch.setattr(provenance, "_installed", provenance._installed.__wrapped__)  # which is kept
    listed = packages(("Torch_Vision", "1.0"), ("numpy", "2.1"), (None, "0"), ("numpy", "2.1"))
    monkeypatch.setattr(provenance.metadata, "distributions", lambda: listed)
    found = provenance.run_environment()
    expected = hashlib.sha256(b"numpy==2.1\ntorch-vision==1.0").hexdigest()
    assert found["installed"] == {"count": 2, "sha256": expected}
    assert (found["cuda"], found["cudnn"]) == (torch.version.cuda, torch.backends.cudnn.version())
    monkeypatch.setattr(
        provenance.metadata, "distributions", lambda: packages(("numpy", "2.1"), ("torch.vision", "1.0"))
    )
    assert provenance.run_environment()["installed"]["sha256"] == expected
    monkeypatch.setattr(
        provenance.metadata, "distributions", lambda: packages(("numpy", "2.2"), ("torch.vision", "1.0"))
    )
    assert provenance.run_environment()["installed"]["sha256"] != expected


def test_the_hash_is_that_of_the_metadata_files() -> None:
    """Read by hand from the folders that Python looks into."""
    lines = set()
    for folder in {Path(entry or ".").resolve() for entry in sys.path}:
        for file in [*folder.glob("*.dist-info/METADATA"), *folder.glob("*.egg-info/PKG-INFO")]:
            head = dict(re.findall(r"^(Name|Version): (.*)$", file.read_text(encoding="utf8"), re.MULTILINE)[:2])
            lines.add(f"{re.sub('[-_.]+', '-', head['Name']).lower()}=={head['Version']}")
    found = provenance.run_environment()["installed"]
    joined = "\n".join(sorted(lines)).encode()
    assert found == {"count": len(lines), "sha256": hashlib.sha256(joined).hexdigest()}


def test_the_precision_that_was_used_is_a_fact(tmp_path: Path, clock: Clock) -> None:
    record, checkpoint = Provenance(tmp_path, {}), {}
    record.on_fit_start(fit_trainer(precision="bf16-mixed", datamodule=None), None)  # type: ignore[arg-type]
    record.on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
    assert checkpoint["provenance"]["precision"] == "bf16-mixed"


def test_each_checkpoint_tells_how_many_pseudo_labels_of_each_tier_its_phase_used(tmp_path: Path, clock: Clock) -> None:
    record = Provenance(tmp_path, {})
    for tiers in ({"A": 3, "B": 2}, {"A": 5}):
        data, checkpoint = SimpleNamespace(prepared=SimpleNamespace(label_tiers=tiers)), {}
        record.on_fit_start(fit_trainer(precision="32-true", datamodule=data), None)  # type: ignore[arg-type]
        record.on_save_checkpoint(None, None, checkpoint)  # type: ignore[arg-type]
        assert checkpoint["provenance"]["label_tiers"] == tiers
    data = SimpleNamespace(prepared=SimpleNamespace(label_tiers=None))
    masks = Provenance(tmp_path / "other", {})
    masks.on_fit_start(fit_trainer(precision="32-true", datamodule=data), None)  # type: ignore[arg-type]
    assert "label_tiers" not in masks.facts


def test_energy_adds_up_over_resumes(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps({"wall_time_s": 1.0}))  # of a time when energy was not recorded
    readings = iter([90, 95, 5, 12, 20, 20, 31])  # wraps at 100: 5, 10, 7; then a pause of 8; then 0, 11
    monkeypatch.setattr(
        provenance, "read_counters", lambda: ({"rapl package-0": Reading(next(readings), 100.0)}, ["b cannot be read"])
    )
    record = Provenance(tmp_path, {})
    with record.recording():
        record.on_train_epoch_end(SimpleNamespace(is_global_zero=True), None)  # type: ignore[arg-type]
    assert page(path)["energy_j"] == {"rapl package-0": 22.0}
    with Provenance(tmp_path, {}).recording():
        pass
    facts = page(path)
    assert facts["energy_j"] == {"rapl package-0": 33.0}
    assert facts["energy_note"] == "b cannot be read"
    assert facts["device_time_s"]["processor"] >= 0


def test_without_a_counter_it_says_so(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "read_counters", lambda: ({}, []))
    with Provenance(tmp_path, {}).recording():
        pass
    facts = page(tmp_path / "provenance.json")
    assert (facts["energy_j"], facts["energy_note"]) == ({}, "not measured (no counter that can be read)")


def test_device_time_is_that_of_every_device_and_adds_up(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "read_counters", lambda: ({"rapl package-0": Reading(1.0, 9.0)}, []))
    for _ in range(2):
        record = Provenance(tmp_path, {})
        with record.recording():
            clock.now += 3  # before the training no device is at work
            record.on_fit_start(fit_trainer("cuda", precision="x", datamodule=None), None)  # type: ignore[arg-type]
            clock.now += 5
    facts = page(tmp_path / "provenance.json")
    assert facts["device_time_s"]["devices"] == 20.0
    assert facts["energy_note"] == "devices not counted: pynvml gives no counter"
