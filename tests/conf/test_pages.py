"""The pages of `docs/` agree with the configs and the files of today."""

import itertools
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from tests.conftest import composed

from hsl.cli import conf_dir
from hsl.config.calls import check_calls
from hsl.config.validation import validate
from hsl.verbs.train.phase_plan import read_phases

RESULTS = conf_dir().parent / "docs/results"
PAGES = sorted(page for page in RESULTS.glob("*.md") if page.name != "README.md")
MEASURED = {
    "coffee_leaf": {"augmentation.colour.hue": 0.02, "data.batch_size": 16, "trainer.precision": "32-true"},
    "coral": {
        "augmentation.colour.hue": 0.02, "data.batch_size": 4, "inference.stride": 171, "monitor": "val/miou",
        "optimizer.lr": 1e-3, "scheduler._target_": "hsl.tasks.schedulers.onecycle", "trainer.max_epochs": 8,
        "trainer.precision": "32-true",
    },
    "ensembles": {"data.batch_size": 16, "data.split.stop_fraction": 0.1, "trainer.max_epochs": 10},
    "gate": {"data.batch_size": 16, "data.split.stop_fraction": 0.1, "trainer.max_epochs": 10},
    "magnetic_tile": {"data.batch_size": 8, "data.image_size": 96, "trainer.max_epochs": 24},
    "nuclei": {"data.batch_size": 16, "data.image_size": 128, "trainer.max_epochs": 8},
    "suspects": {"data.batch_size": 8, "data.split.stop_fraction": 0.1, "trainer.max_epochs": 8},
    "steel": {"augmentation.blur.kernel": None, "data.split.num_folds": 3, "trainer.max_epochs": 4},
}  # fmt: skip
"""What the runs of a page had; their presets move on, and its commands put back what these have had since."""

TELL = "python() { printf '%s\\0' python \"$@\" END; }; hsl() { printf '%s\\0' hsl \"$@\" END; }\n"


def commands(page: Path) -> list[list[str]]:
    """The words of each command of the first code block, as bash hands them on."""
    (block, *_) = re.findall(r"^```\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    told = subprocess.run(["bash", "-euc", TELL + block], capture_output=True, text=True, check=True).stdout
    return [line.split("\0")[:-1] for line in told.split("END\0")[:-1]]


def runs(words: list[str]) -> list[list[str]]:
    """The overrides of each run of a command; of folds only the first."""
    parsed = [one for one in OverridesParser.create().parse_overrides(words) if one.input_line]
    values = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line]
        for one in parsed
    ]
    return [list(run) for run in itertools.product(*[one[:1] if one[0].startswith("fold=") else one for one in values])]


def check_run(cfg: DictConfig) -> None:
    validate(cfg)
    for one in (cfg, *(phase.cfg for phase in read_phases(cfg))):
        check_calls(OmegaConf.to_container(one, resolve=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_compose(page: Path) -> None:
    for program, *words in commands(page):
        named = list(itertools.takewhile(lambda word: "=" not in word, words))
        if program == "hsl":
            composed(words[len(named) :], "_".join(named))
            continue
        assert named in (["train.py"], ["train.py", "-m"])
        for run in runs(words[len(named) :]):
            check_run(cfg := composed(run))
            expected = MEASURED[page.stem] | {"seed": 0}
            assert {key: OmegaConf.select(cfg, key) for key in expected} == expected


def test_pages_and_few_pictures_of_theirs() -> None:
    files = {path.name: path.stat().st_size for path in RESULTS.iterdir()}
    shown = [re.findall(r"^!\[.*\]\((.*)\)$", page.read_text(), re.MULTILINE) for page in PAGES]
    assert sorted(itertools.chain(*shown)) == sorted(name for name in files if not name.endswith(".md"))
    assert max(map(len, shown)) <= 2
    assert sum(files.values()) < 2_000_000


# `docs/coverage.md` counts its own rows right and names files that are there.


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/coverage.md").read_text(encoding="utf8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)


def cells(text: str) -> list[list[str]]:
    """The rows of a table below its heading and rule."""
    rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_counts_are_those_of_the_rows() -> None:
    expected = []
    total: Counter[str] = Counter()
    for section in SECTIONS[1:]:
        states = Counter(state.split(":")[0] for _, state, _ in cells(section))
        total += states
        expected.append([section.splitlines()[0], states])
    for (name, points, equal, differs, later), (title, states) in zip(
        cells(SECTIONS[0]), [*expected, ["all", total]], strict=True
    ):
        assert name == title
        assert int(points) == states.total() == int(equal) + int(differs) + int(later)
        assert [states[state] for state in ("equal", "differs", "later")] == [int(equal), int(differs), int(later)]
    assert total.total() == 245


def test_each_point_says_where_it_stands_or_why_not() -> None:
    later = {"ensembles", "gate", "export", "server", "study"}
    for section in SECTIONS[1:]:
        for point, state, where in cells(section):
            assert point, section.splitlines()[0]
            assert where.strip("-. "), point
            assert state in ("equal", "differs") or set(state.removeprefix("later: ").split(", ")) <= later, point


def test_the_files_that_it_names_are_there() -> None:
    paths = re.findall(r"`((?:src|conf|docs|tests|slurm)/[^`]+)`", PAGE)
    assert [path for path in paths if not (ROOT / path).exists()] == []
