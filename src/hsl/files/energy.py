"""Energy counters of the machine: RAPL of Linux for processors, NVML for NVIDIA devices.

They count everything that runs on the machine, not one process.
Source: https://docs.kernel.org/power/powercap/powercap.html; NVML API reference, nvmlDeviceGetTotalEnergyConsumption.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Reading:
    """A counter in joules; ``wraps_at``: it starts at 0 again beyond this, none where it does not."""

    joules: float
    wraps_at: float | None = None


def read_counters(powercap: Path = POWERCAP) -> tuple[dict[str, Reading], list[str]]:
    """Every counter that can be read, by name, and a sentence for each that is there but cannot."""
    rapl, notes = _read_rapl(powercap)
    nvml, more = _read_nvml()
    return rapl | nvml, notes + more


def spent_between(before: Mapping[str, Reading], after: Mapping[str, Reading]) -> dict[str, float]:
    """Joules of each counter that both readings have, with at most one wrap between them.

    A counter that went back and does not wrap was reset: what it counts since then is all that is known.
    """
    spent = {}
    for name in before.keys() & after.keys():
        difference = after[name].joules - before[name].joules
        if difference < 0:
            wraps_at = after[name].wraps_at
            difference = after[name].joules if wraps_at is None else difference + wraps_at
        spent[name] = difference
    return spent


def _read_rapl(powercap: Path) -> tuple[dict[str, Reading], list[str]]:
    """Packages alone: cores and memory are parts of a package (``intel-rapl:0:1``), and ``psys`` has it within."""
    found, notes = {}, []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:
            continue
        try:
            name = (folder / "name").read_text().strip()
            if not name.startswith("package"):
                continue
            joules, wraps_at = (int((folder / file).read_text()) / 1e6 for file in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a number"
            notes.append(f"{folder.name} cannot be read: {reason}")
            continue
        found[f"rapl {name}"] = Reading(joules, wraps_at)
    return found, notes


def _read_nvml() -> tuple[dict[str, Reading], list[str]]:
    if importlib.util.find_spec("pynvml") is None:
        return {}, []
    nvml = importlib.import_module("pynvml")
    found, notes = {}, []
    try:
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                joules = nvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3
            except nvml.NVMLError as error:
                notes.append(f"nvml {index} cannot be read: {error}")
                continue
            found[f"nvml {index}"] = Reading(joules)
    except nvml.NVMLError as error:
        notes.append(f"nvml cannot be read: {error}")
    return found, notes
