"""From the array index to one run's overrides."""

import subprocess
import sys
from pathlib import Path

import pytest

PICK = Path(__file__).parents[2] / "slurm" / "pick.py"


def pick(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PICK, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, ["encoder=a", "fold=0"]),
        (2, ["encoder=a", "fold=2"]),
        (3, ["encoder=b", "fold=0"]),
        (5, ["encoder=b", "fold=2"]),
    ],
)
def test_the_last_list_varies_fastest(index: int, expected: list[str]) -> None:
    assert pick(str(index), "encoder=a,b", "fold=0,1,2").stdout.splitlines() == expected


def test_only_sweeps_are_taken_apart() -> None:
    arguments = ["data.image_size=[128,160]", "+note='a,b'", "~logger", "fold=range(2)", "data.root=/a b/c"]
    expected = ["data.image_size=[128,160]", "+note='a,b'", "~logger", "fold=1", "data.root=/a b/c"]
    assert pick("1", *arguments).stdout.splitlines() == expected


@pytest.mark.parametrize("index", ["6", "-1"])
def test_an_index_without_a_run_is_an_error(index: str) -> None:
    done = pick(index, "encoder=a,b", "fold=0,1,2")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"in [0, 6), one for each run of `encoder=a,b fold=0,1,2`. Found {index}." in done.stderr


def test_a_broken_override_is_an_error() -> None:
    done = pick("0", "encoder=a,[b")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
