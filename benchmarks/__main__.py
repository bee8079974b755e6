"""`python -m benchmarks [NAME]`: run one benchmark or all, print the ratios, write benchmarks/results.json."""

import importlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"  # name of the benchmark -> its rows
NO_BENCHMARK = {"gate", "plan", "same_numbers", "scale"}  # tools with a command line of their own, and one of an hour


def main() -> int:
    names = sys.argv[1:] or sorted(p.stem for p in HERE.glob("*.py") if p.stem[0] != "_" and p.stem not in NO_BENCHMARK)
    missed = 0
    for name in names:
        rows = importlib.import_module(f"benchmarks.{name}").run()
        if not rows:
            continue
        results = json.loads(RESULTS.read_text(encoding="utf8")) | {name: rows}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
        for row in rows:
            missed += not row["holds"]
            print(
                f"{row['name']}: ratio {row['ratio']:.3g} (goal {row['goal']}) {'holds' if row['holds'] else 'MISSED'}"
            )
            print(f"  ours {row['ours']}, peer {row['peer']}, sizes {row['sizes']}, versions {row['versions']}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
