"""`hsl sweep plan`: encoders from light to heavy, and the scripts that train them in this order."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.table import Table

from hsl.config.validation import validate
from hsl.console import PlainConsole
from hsl.errors import ConfigError
from hsl.files.output_folder import OutputFolder
from hsl.terminal import say
from hsl.verbs.profile.memory import with_encoder
from hsl.verbs.profile.profile import MIB, check_table_free, keep, measure, read_profiles
from hsl.verbs.run_scripts import write_scripts


def plan(cfg: DictConfig) -> None:
    """Measure what profiles.json lacks, print the order, write ``sweep.sh`` and ``array.sbatch``.

    Raises:
        ConfigError: no encoder, no fold, an override that is a sweep itself, or the output is taken.
    """
    validate(cfg)
    _check(cfg)
    with OutputFolder(cfg.output, "sweep plan") as output:
        profiles = {name: _profile(cfg, name) for name in cfg.encoders}
        ordered = sorted(profiles, key=lambda name: (profiles[name]["bytes_per_picture"], name))
        _write_runs(cfg, ordered, profiles, output.work)
    _print({name: profiles[name] for name in ordered}, list(cfg.folds))
    if cfg.training_pictures is not None:
        for sentence in cost(cfg, [profiles[name] for name in ordered]):
            say(sentence)
    say(f"bash {output.path / 'sweep.sh'}\nsbatch {output.path / 'array.sbatch'}")


def cost(cfg: DictConfig, profiles: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the training steps of all runs take, by the largest measured batch of each encoder; time goes by area.

    Args:
        cfg: of the verb; ``training_pictures`` are those of one fold.
        profiles: entries of profiles.json.
    """
    run = compose("train", overrides=list(cfg.overrides))
    epochs, size = run.trainer.max_epochs, run.data.image_size
    height, width = size if isinstance(size, Sequence) else (size, size)
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(
            f"`trainer.max_epochs` should be a number to tell the cost by. Found `trainer.max_epochs = {epochs}`. "
            "Add it to `overrides`, or leave `training_pictures` away."
        )
    per_picture = [
        entry["steps"][-1]["seconds"] / entry["steps"][-1]["batch_size"] * height * width / entry["image_size"] ** 2
        for entry in profiles
    ]
    hours = sum(per_picture) * cfg.training_pictures * epochs * len(cfg.folds) / 3600
    devices = ", ".join(sorted({str(entry["device"]) for entry in profiles}))
    told = [
        f"Training steps of all {len(profiles) * len(cfg.folds)} runs: about {hours:.3g} h on one {devices} "
        f"({cfg.training_pictures} pictures of {height} x {width}, {epochs} epochs). Reading, validation and the last "
        "evaluation come on top; energy is recorded by the runs."
    ]
    if cfg.price_per_hour is not None:
        told.append(f"At {cfg.price_per_hour:g} an hour: about {hours * cfg.price_per_hour:.3g}.")
    return told


def _write_runs(cfg: DictConfig, ordered: Sequence[str], profiles: Mapping[str, Any], folder: Path) -> None:
    own = {_key(override) for override in cfg.overrides}  # the user's word is the last
    runs = []
    for name in ordered:
        of_tier = [override for override in profiles[name]["overrides"] if _key(override) not in own]
        runs += [[f"encoder={name}", *of_tier, f"fold={fold}", *cfg.overrides] for fold in cfg.folds]
    write_scripts(folder, runs, "sweep plan", "sweep", "from light to heavy")


def _check(cfg: DictConfig) -> None:
    for key in ("encoders", "folds"):
        if not cfg[key] or len(set(cfg[key])) < len(cfg[key]):
            raise ConfigError(f"`{key}` should name at least one, none twice. Found `{key} = {list(cfg[key])}`.")
    for override in OverridesParser.create().parse_overrides(list(cfg.overrides)):
        if override.is_sweep_override():
            raise ConfigError(
                f"`overrides` should give each key one value. Found `{override.input_line}`. Plan one sweep for each."
            )


def _key(override: str) -> str:
    return OverridesParser.create().parse_override(override).get_key_element().lstrip("+~")


def _profile(cfg: DictConfig, name: str) -> dict[str, Any]:
    """The encoder's entry in profiles.json, measured now if there is none for this size and precision."""
    entry: dict[str, Any] | None = read_profiles(Path(cfg.profiles)).get(name)
    if entry and (entry["image_size"], entry["precision"]) == (cfg.data.image_size, cfg.precision):
        return entry
    say(f"measuring {name}")
    check_table_free(Path(cfg.profiles), name)
    entry = measure(with_encoder(name))
    keep(Path(cfg.profiles), name, entry)
    return entry


def _print(profiles: dict[str, dict[str, Any]], folds: list[int]) -> None:
    title = f"{len(profiles)} encoders, folds {', '.join(map(str, folds))}"
    table = Table("encoder", "tier", "MiB per picture", "parameters", title=title, title_justify="left")
    for name, entry in profiles.items():
        size, number = f"{entry['bytes_per_picture'] / MIB:.1f}", f"{entry['parameters'] / 1e6:.1f} M"
        table.add_row(name, entry["tier"], size, number)
    PlainConsole().print(table)
    for tier, overrides in {entry["tier"]: entry["overrides"] for entry in profiles.values()}.items():
        say(f"{tier}: {shlex.join(overrides)}")
