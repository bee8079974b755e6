"""What each verb imports: a verb that needs no torch works where there is none, and a mistake is answered before it."""

import ast
import subprocess
import sys
from pathlib import Path

import yaml
from tests._runs import write_full_runs

ROOT = Path(__file__).parents[2]
HEAVY = frozenset([
    "torch", "lightning", "torchmetrics", "torchvision", "transformers", "timm", "segmentation_models_pytorch",
    "albumentations", "torchjd", "datasets", "pytorch_grad_cam",
])  # fmt: skip
LEARNING = frozenset(["torch", "lightning", "torchmetrics", "albumentations", "timm"])
BUILDING = LEARNING | {"segmentation_models_pytorch"}
MAY_IMPORT = {
    "label_score": frozenset(["torch"]), "smoke": frozenset(["torch", "timm", "segmentation_models_pytorch"]),
    "profile": BUILDING, "sweep_plan": BUILDING, "train": BUILDING, "evaluate": BUILDING, "predict": BUILDING,
    "analyze": LEARNING | {"pytorch_grad_cam"}, "label": LEARNING | {"pytorch_grad_cam"}, "ensemble": LEARNING,
    "export": BUILDING, "smoke_export": BUILDING, "gate": BUILDING, "gate_sample": BUILDING,
    "suspects": LEARNING, "suspects_fix": LEARNING,
}  # fmt: skip
"""What the module of a verb imports before it is called; the parts that a config names come on top.

A verb that is not listed (audit, options, report, runs, ...) imports none."""

GATHER = ("report", "ensemble", "ensemble plan", "gate", "gate sample", "suspects")

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            raise ImportError(f"{{name}} should not be imported here")
sys.meta_path.insert(0, Absent())
from hsl import cli
for words in {commands!r}:
    sys.argv = ["hsl", *words[0].split(), *words[1:]]
    try:
        cli.main()
    except SystemExit as end:
        print("ends with", end.code)
"""


def run_without(commands: list[list[str]], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Commands of one process that finds none of the heavy modules."""
    code = WITHOUT.format(heavy=set(HEAVY), commands=commands)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_each_verb_imports_what_it_needs() -> None:
    imports = {name: _imports(path) for name, path in _modules().items()}
    entries = {path.stem: yaml.safe_load(path.read_text())["entry"] for path in (ROOT / "conf").glob("[!_]*.yaml")}
    assert MAY_IMPORT.keys() <= entries.keys()
    for verb, entry in entries.items():
        seen, left = set(), [entry.rpartition(".")[0]]
        while left:
            if (name := left.pop()) in imports and name not in seen:
                seen.add(name)
                left += imports[name]
        found = {name.partition(".")[0] for module in seen for name in imports[module]} & HEAVY
        assert found == MAY_IMPORT.get(verb, frozenset()), verb


def test_four_verbs_work_without_torch(tmp_path: Path) -> None:
    write_full_runs(tmp_path, {"a": 0.9, "b": 0.6}, num_folds=2, per_fold=2)
    small = ["data.reader.num_pictures=16", "data.reader.size=32", "data.split.test_fraction=0"]
    done = run_without(
        [
            ["report", "runs=outputs/*", "resamples=100", "formats=[svg]"],
            ["audit", *small],
            ["runs"],
            ["options", "encoder"],
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "ends with" not in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "outputs" / "report" / "index.html").is_file()
    assert (tmp_path / "outputs" / "audit" / "audit.json").is_file()


def test_mistakes_are_answered_without_torch(tmp_path: Path) -> None:
    mistakes = {
        ("train", "data=folder", "data.root=nowhere"): "The data folder `nowhere` does not exist",
        ("train", "monitor=val/typo"): "`monitor` should be a score",
        ("evaluate", "run=nowhere"): "`run` should be a run folder",
        ("predict", "run=nowhere", "input=x", "output=y"): "`run` should be a run folder",
        ("report", "runs=empty", "metric=typo"): "`metric` should be one of",
        **{(verb, "runs=nowhere*"): "`runs` should match at least one run folder" for verb in GATHER},
        ("audit", "data=folder", "data.root=.", "data.num_workers=many"): "`data.num_workers` should be",
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").touch()
    done = run_without([list(words) for words in mistakes], tmp_path)
    assert done.stdout.count("ends with 2") == len(mistakes), done.stdout + done.stderr
    answers = done.stderr.split("error: ")[1:]
    for (words, sentence), answer in zip(mistakes.items(), answers, strict=True):
        assert sentence in answer, words


def _modules() -> dict[str, Path]:
    source = ROOT / "src"
    paths = {".".join(path.relative_to(source).with_suffix("").parts): path for path in source.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def _imports(path: Path) -> set[str]:
    """The modules, and names that may be modules, that a file imports when it is imported itself."""
    found: set[str] = set()
    left: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf8")).body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            left += node.orelse
        elif not isinstance(node, ast.FunctionDef):
            left += [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt)]
    return found
