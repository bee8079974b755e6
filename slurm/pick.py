"""Prints run INDEX of a sweep, one override per line: `python slurm/pick.py INDEX encoder=a,b fold=0,1`.

Hydra's own parser reads them, so they mean what they mean behind `train.py -m`; the last list varies fastest.
"""

import itertools
import sys

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


def main() -> None:
    """Print the overrides, or one sentence and exit code 2."""
    index, *arguments = sys.argv[1:]
    try:
        overrides = OverridesParser.create().parse_overrides(arguments)
    except HydraException as error:
        _stop(str(error))
    runs = list(itertools.product(*map(_choices, overrides)))
    if not 0 <= int(index) < len(runs):
        _stop(
            f"the array index should be in [0, {len(runs)}), one for each run of `{' '.join(arguments)}`. "
            f"Found {index}. Submit with `--array=0-{len(runs) - 1}`."
        )
    print(*runs[int(index)], sep="\n")


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _stop(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
