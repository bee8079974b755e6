"""`hsl profile`: the memory of an encoder in training, and the memory tier that follows from it."""

import csv
import gc
import io
import json
import os
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.table import Table
from torch import nn
from torch.optim import Optimizer

from hsl.config.validation import validate
from hsl.console import PlainConsole
from hsl.errors import ConfigError, DataError
from hsl.files.cells import neutral_row
from hsl.files.io import write_atomically
from hsl.terminal import say
from hsl.verbs.profile.lr_search import search_learning_rate
from hsl.verbs.profile.memory import PRECISIONS, Step, bytes_per_picture, measure_step, resident_bytes

PROFILES = "profiles.json"
FORMAT = 1
MIB = 2**20
SPARE = 0.85
"""Share of a CPU's free memory that a batch may be expected to take before it is left out."""


def profile(cfg: DictConfig) -> None:
    """Measure one encoder, print the table and the overrides of its tier, and keep both; or search a learning rate."""
    validate(cfg)
    if not isinstance(cfg.lr, bool):
        raise ConfigError(f"`lr` should be true or false. Found `lr = {cfg.lr}`. A rate itself is `optimizer.lr`.")
    if cfg.lr:
        search_learning_rate(cfg)
        return
    check_table_free(Path(cfg.profiles), cfg.name)
    entry = measure(cfg)
    keep(Path(cfg.profiles), cfg.name, entry)
    print_profile(cfg.name, entry)
    say(f"{Path(cfg.profiles) / PROFILES}")


def measure(cfg: DictConfig) -> dict[str, Any]:
    """The entry of an encoder in profiles.json.

    Raises:
        ConfigError: an unknown precision, no two batch sizes, or none that fit.
    """
    sizes = sorted(set(cfg.batch_sizes))
    if cfg.precision not in PRECISIONS:
        raise ConfigError(f"`precision` should be one of {', '.join(PRECISIONS)}. Found `precision = {cfg.precision}`.")
    if len(sizes) < 2 or sizes[0] < 1:
        raise ConfigError(
            "`batch_sizes` should hold two sizes of at least 1: memory per picture is the difference between batches. "
            f"Found `batch_sizes = {list(cfg.batch_sizes)}`."
        )
    torch.manual_seed(cfg.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network: nn.Module = instantiate(cfg.network).to(device)
    optimizer: Optimizer = instantiate(cfg.optimizer)(network)
    steps = _steps(network, optimizer, cfg, sizes)
    if len(steps) < 2:
        raise ConfigError(
            f"Two of `batch_sizes = {sizes}` should fit into the memory of {device.type}. Found {len(steps)}. "
            "Add smaller ones, or lower `data.image_size`."
        )
    per_picture = bytes_per_picture(steps)
    tier = memory_tier(per_picture, cfg.tiers)
    return {
        "tier": tier,
        "bytes_per_picture": round(per_picture),
        "resident_bytes": resident_bytes(network, optimizer),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "overrides": [*cfg.every_tier, *cfg.tiers[tier].overrides],
        "image_size": cfg.data.image_size,
        "precision": cfg.precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "steps": [vars(step) for step in steps],
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def memory_tier(per_picture: float, tiers: Mapping[str, Any]) -> str:
    """The first tier whose bound in MiB is above this.

    Example:
        >>> memory_tier(150 * 2**20, {"light": {"below": 100}, "heavy": {"below": float("inf")}})
        'heavy'

    Raises:
        ConfigError: There is none.
    """
    for name, tier in tiers.items():
        if per_picture < tier["below"] * MIB:
            return name
    raise ConfigError(
        f"One of `tiers` should be for every encoder. Found none above {per_picture / MIB:.1f} MiB per picture. Set "
        "`below: .inf` in the last."
    )


def read_profiles(folder: Path) -> dict[str, Any]:
    """Entries by encoder; none if nothing was measured yet.

    Raises:
        DataError: the file is broken.
    """
    path = folder / PROFILES
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf8"))["encoders"])
    except (json.JSONDecodeError, LookupError, TypeError) as error:
        raise DataError(f"{path} should be written by `hsl profile`. Found: {error!r}. Delete it.") from error


def check_table_free(folder: Path, name: str) -> None:
    """See, before an encoder is measured, that its table replaces none but the one of its entry.

    Raises:
        ConfigError: there is another file of that name.
        DataError: profiles.json is broken.
    """
    path, entry = folder / f"{name}.csv", read_profiles(folder).get(name)
    if path.exists() and not (entry and path.is_file() and path.read_bytes() == _table(entry)):
        raise ConfigError(
            f"`{path}` should be the table of `{name}` in {PROFILES}, which alone is replaced. Found another file. "
            "Move it away, or set `name` or `profiles`."
        )


def keep(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Put an entry into profiles.json and its table beside it."""
    content = {"format": FORMAT, "encoders": {**read_profiles(folder), name: entry}}
    write_atomically(folder / PROFILES, json.dumps(content, indent=1, sort_keys=True).encode())
    write_atomically(folder / f"{name}.csv", _table(entry))


def _table(entry: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["batch_size", "memory", "seconds"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(neutral_row, entry["steps"]))
    return text.getvalue().encode()


def print_profile(name: str, entry: dict[str, Any]) -> None:
    """Print the measured steps, the tier and the overrides."""
    title = f"{name}, {entry['image_size']} pixels, {entry['precision']}, {entry['device']}"
    table = Table("pictures", "MiB", "s", title=title, title_justify="left")
    for step in entry["steps"]:
        table.add_row(str(step["batch_size"]), f"{step['memory'] / MIB:.0f}", f"{step['seconds']:.2f}")
    PlainConsole().print(table)
    say(f"{entry['bytes_per_picture'] / MIB:.1f} MiB per picture, {entry['resident_bytes'] / MIB:.0f} MiB in any case")
    say(f"tier {entry['tier']}: {shlex.join(entry['overrides'])}")


def _steps(network: nn.Module, optimizer: Optimizer, cfg: DictConfig, sizes: list[int]) -> list[Step]:
    """One step of each size, up to the first that does not fit."""
    steps: list[Step] = []
    for size in sizes:
        if len(steps) > 1 and next(network.parameters()).device.type == "cpu":
            expected = steps[-1].memory + (size - steps[-1].batch_size) * bytes_per_picture(steps)
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if expected > SPARE * free:
                say(f"{size} pictures are left out: they would take {expected / MIB:.0f} of {free / MIB:.0f} MiB free")
                break
        try:
            steps.append(measure_step(network, optimizer, size, cfg.data.image_size, cfg.precision))
        except torch.OutOfMemoryError:
            say(f"{size} pictures do not fit into the memory of the GPU")
            optimizer.zero_grad(set_to_none=True)
            break
        finally:
            gc.collect()
    return steps
