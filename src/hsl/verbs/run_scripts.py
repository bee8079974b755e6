"""Shell scripts of several runs: one after the other, or one a task of a SLURM array."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hsl.files.io import write_atomically

ONE_BY_ONE = """\
#!/bin/bash
# Written by `hsl {verb}`: one run after the other{order}. Start it again to go on: what is finished is skipped.
# A run that fails does not stop the others; the exit code is then 1. HSL_PYTHON names another Python.
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
# Written by `hsl {verb}`: one run per task{order}. Submit from the root of the repository, as often as needed:
# what is finished is skipped. slurm/array.sbatch answers the scheduler; docs/slurm.md tells how.
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


def write_scripts(folder: Path, runs: Sequence[Sequence[str]], verb: str, name: str, order: str = "") -> None:
    """Write ``<name>.sh`` and ``array.sbatch``.

    Args:
        folder: where they are written.
        runs: of each what stands behind train.py.
        verb: who wrote them, ``sweep plan``.
        name: of the shell script.
        order: what is said of the order of the runs.
    """
    said, lines = f", {order}" if order else "", [shlex.join(words) for words in runs]
    tasks = "\n".join(f"  {index}) set -- {line} ;;" for index, line in enumerate(lines))
    one_by_one = ONE_BY_ONE.format(runs="\n".join(f"run {line}" for line in lines), verb=verb, order=said)
    array = ARRAY.format(last=len(lines) - 1, runs=tasks, verb=verb, order=said)
    write_atomically(folder / f"{name}.sh", one_by_one.encode())
    write_atomically(folder / "array.sbatch", array.encode())
