"""`hsl sweep plan`: encoders from light to heavy, and the scripts that train them in this order."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from rich.table import Table

from hsl.config.validation import validate
from hsl.console import PlainConsole
from hsl.errors import ConfigError
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.terminal import say
from hsl.verbs.profile.memory import with_encoder
from hsl.verbs.profile.profile import MIB, check_table_free, keep, measure, read_profiles

ONE_BY_ONE = """\
#!/bin/bash
# Written by `hsl sweep plan`: one run after the other, from light to heavy. Start it again to go on: what is finished
# is skipped. A run that fails does not stop the others; the exit code is then 1. HSL_PYTHON names another Python.
set -uo pipefail
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
python=${{HSL_PYTHON:-.venv/bin/python}}
command -v "$python" >/dev/null || python=python
failed=()
run() {{
  echo "== $*"
  "$python" train.py resume=last "$@"
  case $? in
    0) ;;
    129 | 130 | 143) exit $? ;; # a signal ended the run, and so the sweep
    *) failed+=("$*") ;;
  esac
}}
{runs}
if ((${{#failed[@]}})); then
  printf 'failed: %s\\n' "${{failed[@]}}" >&2
  exit 1
fi
"""
ARRAY = """\
#!/bin/bash
# Written by `hsl sweep plan`: one run per task, from light to heavy. Submit from the root of the repository, as often
# as needed: what is finished is skipped. slurm/array.sbatch answers the scheduler; docs/slurm.md tells how.
#SBATCH --job-name=hsl
#SBATCH --array=0-{last}
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --output=slurm-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
set -euo pipefail
case $SLURM_ARRAY_TASK_ID in
{runs}
esac
SLURM_ARRAY_TASK_ID=0 exec bash slurm/array.sbatch "$@" # one run is left, its first
"""


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
        _write_scripts(cfg, ordered, profiles, output.work)
    _print({name: profiles[name] for name in ordered}, list(cfg.folds))
    say(f"bash {output.path / 'sweep.sh'}\nsbatch {output.path / 'array.sbatch'}")


def _write_scripts(cfg: DictConfig, ordered: Sequence[str], profiles: Mapping[str, Any], folder: Path) -> None:
    own = {_key(override) for override in cfg.overrides}  # the user's word is the last
    runs = []
    for name in ordered:
        of_tier = [override for override in profiles[name]["overrides"] if _key(override) not in own]
        runs += [shlex.join([f"encoder={name}", *of_tier, f"fold={fold}", *cfg.overrides]) for fold in cfg.folds]
    tasks = "\n".join(f"  {index}) set -- {run} ;;" for index, run in enumerate(runs))
    one_by_one = ONE_BY_ONE.format(runs="\n".join(f"run {run}" for run in runs))
    write_atomically(folder / "sweep.sh", one_by_one.encode())
    write_atomically(folder / "array.sbatch", ARRAY.format(last=len(runs) - 1, runs=tasks).encode())


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
