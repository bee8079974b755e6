"""Counters of a powercap tree of the test's own."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hsl.files.energy import Reading, read_counters, spent_between


def domain(root: Path, folder: str, name: str, energy: str, most: str = "1000000000") -> None:
    (root / folder).mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", most)):
        (root / folder / file).write_text(text + "\n")


def test_packages_count_once_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", "5000000")
    domain(tmp_path, "intel-rapl:0:0", "core", "4000000")
    domain(tmp_path, "intel-rapl:1", "package-1", "7500000")
    domain(tmp_path, "intel-rapl:2", "psys", "99000000")
    domain(tmp_path, "intel-rapl-mmio:0", "package-0", "5000000")
    domain(tmp_path, "intel-rapl:3", "package-2", "much")
    domain(tmp_path, "intel-rapl:4", "package-3", "1")
    (tmp_path / "intel-rapl:4" / "energy_uj").unlink()
    found, notes = read_counters(tmp_path)
    rapl = {name: one for name, one in found.items() if name.startswith("rapl")}
    assert rapl == {"rapl package-0": Reading(5.0, 1000.0), "rapl package-1": Reading(7.5, 1000.0)}
    assert notes[:2] == [
        "intel-rapl:3 cannot be read: not a number",
        "intel-rapl:4 cannot be read: No such file or directory",
    ]


def test_a_wrap_a_reset_and_a_counter_that_went() -> None:
    before = {"a": Reading(990.0, 1000.0), "b": Reading(10.0, 1000.0), "c": Reading(50.0), "gone": Reading(1.0)}
    after = {"a": Reading(20.0, 1000.0), "b": Reading(12.5, 1000.0), "c": Reading(3.0), "new": Reading(9.0)}
    assert spent_between(before, after) == {"a": 30.0, "b": 2.5, "c": 3.0}


def test_devices_by_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class RefusedError(Exception):
        pass

    def energy(index: int) -> int:
        if index:
            raise RefusedError("Not Supported")
        return 2500

    nvml = SimpleNamespace(
        NVMLError=RefusedError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=energy,
        __spec__=object(),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert read_counters(tmp_path) == ({"nvml 0": Reading(2.5)}, ["nvml 1 cannot be read: Not Supported"])
