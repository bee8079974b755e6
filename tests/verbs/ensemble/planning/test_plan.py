"""`hsl ensemble plan`: commands, tables and targets that a training takes."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests._runs import CLASSES, run_maker, split_of
from tests.conftest import composed

from hsl.cli import run_verb
from hsl.config.calls import check_calls
from hsl.data.labels.teacher_targets import Teachers
from hsl.data.loading.sampling import Weighted
from hsl.ensembles.nested import refit
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import Split
from hsl.files.teacher_file import read_teacher_maps, read_teachers
from hsl.verbs.ensemble.gathering import Members, gather_members, out_of_fold_rows
from hsl.verbs.ensemble.planning import plan as planning
from hsl.verbs.ensemble.planning import teachers
from hsl.verbs.ensemble.planning.planned import STAGES, check_trained, with_planned
from hsl.verbs.ensemble.stages.variants import digest_of, stage_fits

SPLIT = Split.from_json(json.dumps(split_of(per_fold=10)), "split")


Call = Callable[..., tuple[int, str, str]]


def member(root: Path, add_image_head: Any, name: str, skill: float, encoder: str) -> None:
    """A run of each fold."""
    for fold in range(3):
        table = root / "plan" / name.rpartition("/")[2] / f"fold{fold}" / "weights.csv"
        config = {"data": {"sampling": {"table": str(table)}}} if "/" in name else {}
        facts = {"wall_time_s": 60.0 * (fold + 1), "choices": {"loss": "image_ce"}}
        make = run_maker(root)
        folder = make(name, encoder, fold, split=split_of(per_fold=10), rows=[], config=config, provenance=facts)
        add_image_head(folder, fold, skill, dense=False, split=split_of(per_fold=10))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, add_image_head: Any) -> Path:
    """Four members of three folds."""
    root = tmp_path_factory.mktemp("four")
    for name, skill in (("a", 0.5), ("b", 0.8), ("c", 0.3), ("d", 0.7)):
        member(root, add_image_head, name, skill, name)
    return root


@pytest.fixture
def plan(
    four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The verb, for these four where it is told no others."""

    def call(*arguments: str) -> tuple[int, str, str]:
        overrides = 'overrides=["experiment=leaf_classifier","data.root=a b"]'
        given = [f"runs={four}/outputs/*", f"output={tmp_path}/plan", overrides]
        keys = {argument.split("=")[0] for argument in arguments}
        monkeypatch.setattr(sys, "argv", ["hsl", *(g for g in given if g.split("=")[0] not in keys), *arguments])
        monkeypatch.setenv("HSL_ONE_SENTENCE", "")
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        try:
            run_verb("ensemble_plan")
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return (code, *capfd.readouterr())

    return call


def commands(printed: str) -> list[list[str]]:
    lines = [line.partition("  #")[0] for line in printed.splitlines() if line.startswith("python train.py")]
    return [shlex.split(line)[2:] for line in lines]


def test_what_is_planned_can_be_trained(plan: Call, tmp_path: Path) -> None:
    code, printed, error = plan("students=['encoder=mit_b0 encoder.weights=null','']")
    assert (code, error) == (0, "")
    found = commands(printed)
    names = [next(word for word in words if word.startswith("name=")) for words in found[::3]]
    stages = ["cascade_2", "boosting_2", "referee_1", "student_1", "control_1", "student_2", "control_2"]
    assert names == [f"name=planned/{stage}" for stage in stages]
    assert [words[-1] for words in found] == ["fold=0", "fold=1", "fold=2"] * len(stages)
    assert "begin with b" in printed
    assert "21 runs, about 42 min one after the other, 3 min side by side" in printed
    cascade, student, control = (composed(found[place]) for place in (0, 9, 12))
    for cfg in (cascade, student, control):
        check_calls({name: cfg[name] for name in ("data", "loss")})
    assert student.loss.labels._target_.endswith("ImageCrossEntropy")
    assert (student.encoder.name, control.loss.alpha) == ("mit_b0", 0)
    for fold in range(3):
        train = SPLIT.folds[fold].train
        for stage in stages[:3]:
            chances = Weighted(str(tmp_path / "plan" / stage / f"fold{fold}" / "weights.csv")).chances(train, None)
            assert chances.sum() == pytest.approx(1)
        classes = {"classification": ["healthy", "miner", "rust"]}
        read = Teachers.read(tmp_path / "plan" / "teachers", SPLIT, fold, classes)
        assert read.targets.members == ("a", "b", "c", "d")
    for name in ("train.sh", "array.sbatch"):
        subprocess.run(["bash", "-n", tmp_path / "plan" / name], check=True)


def test_the_next_round_begins_where_the_last_one_was_trained(
    plan: Call, four: Path, tmp_path: Path, add_image_head: Any
) -> None:
    assert plan("stages=[cascade]")[0] == 0
    table = tmp_path / "plan" / "cascade_2" / "fold1" / "weights.csv"
    before = table.read_text()
    member(tmp_path, add_image_head, "planned/cascade_2", 0.6, "b")
    code, printed, _ = plan("stages=[cascade,referee]", f"runs=[{four}/outputs/*,{tmp_path}/outputs/*]")
    assert code == 0
    assert "cascade: cascade_3 is next" in printed
    assert "name=planned/cascade_2" not in printed
    assert table.read_text() == before
    assert (tmp_path / "plan" / "cascade_3" / "fold1" / "weights.csv").is_file()
    table.write_text("id\nother\n")
    code, _, error = plan("stages=[cascade]", f"runs=[{four}/outputs/*,{tmp_path}/outputs/*]", f"output={tmp_path}/new")
    assert code == 2
    assert "cascade_2 was trained on other pictures. Leave the new ones out, or set another `name`" in error


def test_nothing_is_left_to_train(plan: Call, tmp_path: Path) -> None:
    code, printed, _ = plan("stages=[cascade]", "rounds.cascade=1")
    assert code == 0
    assert "cascade: complete with 1 trained" in printed
    assert "Nothing is left to train" in printed
    assert not (tmp_path / "plan" / "train.sh").exists()


def test_an_ensemble_knows_what_was_planned_by_its_name(
    plan: Call, four: Path, tmp_path: Path, add_image_head: Any
) -> None:
    for name in ("planned/boosting_2", "planned/referee_1", "planned/student_1", "other/cascade_2"):
        member(tmp_path, add_image_head, name, 0.6, "b")
    runs = [f"{four}/outputs/*", f"{tmp_path}/outputs/*/*"]
    code, printed, error = plan("stages=[boosting,distillation]", "rounds.boosting=2", f"runs=[{','.join(runs)}]")
    assert (code, error) == (0, "")
    assert "! left out: other/cascade_2, which is of another plan" in printed
    assert [words[-2] for words in commands(printed)] == ["name=planned/control_1"] * 3
    assert f"hsl ensemble 'runs=[{','.join(runs)}]' 'stages=[votes,boosting,referee]'" in printed

    def gathered(*patterns: str, stages: tuple[str, ...] = STAGES) -> Members:
        return gather_members(patterns, ["name", "fold", "*.table"], "encoder.name", "image", stages=stages)

    found = gathered(runs[0], f"{tmp_path}/outputs/planned/*")
    assert [one.name for one in found.members] == ["a", "b", "boosting_2", "c", "d", "referee_1"]
    assert found.left_out == ("left out: planned/student_1, which learns from the members",)
    rows = out_of_fold_rows(found, {name: name for name in found.folds})
    calls = {"votes": {}, "boosting": {"order": []}, "referee": {"member": ""}, "cascade": {"order": []}}
    filled = {"boosting": {"order": ["b", "boosting_2"]}, "referee": {"member": "referee_1"}}
    assert with_planned(calls, rows) == calls | filled
    check_trained(filled)
    with pytest.raises(ConfigError, match=r"none for cascade\. Train them with `hsl ensemble plan stages=\[cascade\]`"):
        check_trained(calls | filled)
    assert with_planned({"boosting": {"order": ["a"]}}, rows) == {"boosting": {"order": ["a"]}}
    targets = {name: {"_target_": f"hsl.ensembles.{name}.{name}"} for name in ("votes", "referee")}
    for stage, read in (("votes", "abcd"), ("referee", ["a", "b", "c", "d", "referee_1"])):
        call = {stage: targets[stage] | filled.get(stage, {})}
        for fit in stage_fits(call, stage, rows).values():
            assert set(refit(fit, rows).members) <= set(read)
        assert digest_of(rows, rows.folds, call, stage) == digest_of(rows.of_members(read), rows.folds, call, stage)
    assert refit(stage_fits({}, "individual", rows)["individual/best"], rows).members == ("b",)
    few = gathered(runs[0], f"{tmp_path}/outputs/planned/*", stages=("votes", "boosting"))
    assert few.left_out[-1] == "left out: referee_1, which the stage referee of image heads alone reads"
    with pytest.raises(DataError, match="members of the plans other, planned, of one at most"):
        gathered(*runs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stages=[cascade,cascade]"], "each once. Found `stages = ['cascade', 'cascade']`"),
        (["stages=[votes]"], "`stages` should name some of cascade, boosting, referee, distillation"),
        (["overrides=[]"], "`overrides` should be what stands behind train.py"),
        (['overrides=["fold=1"]'], "leave fold and name to the plan. Found `fold=1`"),
        (['overrides=["seed=1,2"]'], "give each key one value"),
        (["students=['encoder=a,b']"], "give each key one value"),
        (["rounds.cascade=6"], "`rounds.cascade` should be at most 5"),
        (["runs=nowhere/*"], "`runs` should match at least one run folder"),
    ],
)
def test_one_sentence_of_what_is_wrong(plan: Call, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, error = plan(*arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "plan").exists()


def test_members_that_do_not_go_together(plan: Call, four: Path, tmp_path: Path, add_image_head: Any) -> None:
    for fold in (0, 1):
        folder = run_maker(tmp_path)("x", "x", fold, split=split_of(per_fold=10), rows=[])
        add_image_head(folder, fold, dense=False, split=split_of(per_fold=10))
    code, _, error = plan(f"runs=[{four}/outputs/a,{tmp_path}/outputs]")
    assert code == 2
    assert "trained on every fold" in error
    code, _, error = plan(f"runs={four}/outputs/*", "maps=true")
    assert code == 2
    assert "a dense head of the same classes, which exclude each other. Found none" in error


def test_masks_are_taught_by_the_members_that_have_a_dense_head(
    tmp_path: Path, add_image_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, dense in (("a", True), ("b", True), ("c", False)):
        for fold in range(3):
            add_image_head(run_maker(tmp_path)(name, name, fold), fold, dense=dense)
    found = gather_members([f"{tmp_path}/outputs/*"], ["name", "fold"], "encoder.name", "image")
    rows = out_of_fold_rows(found, {name: name for name in found.folds})
    values = {"a": 0.2, "b": 0.6}
    monkeypatch.setattr(teachers, "probability_map", lambda _, member, __: np.full((3, 2, 4), values[member.name]))
    looks = dict.fromkeys(rows.ids, np.array([[0.0, 2.0]], np.float32))
    teachers.write_targets(tmp_path / "teachers", rows, found, ["a", "b", "c"], maps=True, attention=looks)
    targets = read_teachers(tmp_path / "teachers")
    assert targets.classes["segmentation"] == ("background", "crack", "stain")
    np.testing.assert_allclose(targets.images["classification"], rows.probabilities.mean(0), rtol=1e-6)
    for name in targets.ids:
        maps = read_teacher_maps(tmp_path / "teachers", name, targets)
        assert (maps["segmentation"] == round(0.4 * 255)).all()
        assert maps["attention"].tolist() == [[0, 255]]


def test_members_with_masks_alone_teach(
    plan: Call, tmp_path: Path, add_image_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        for fold in range(3):
            facts = {"wall_time_s": 60.0, "choices": {"loss": "dice_focal"}}
            make = run_maker(tmp_path)
            make(name, name, fold, split=split_of(per_fold=10), provenance=facts)
    runs = f"runs={tmp_path}/outputs/*"
    code, _, error = plan(runs)
    assert code == 2
    assert "Set `stages=[distillation]`" in error
    kept: list[str] = []
    monkeypatch.setattr(planning, "_keep_maps", lambda _, base: kept.extend(one.name for one in base))
    values = {"a": 0.2, "b": 0.6}
    monkeypatch.setattr(teachers, "probability_map", lambda _, member, __: np.full((3, 2, 4), values[member.name]))
    code, printed, error = plan(runs, "stages=[distillation]", "students=['encoder=mit_b0','']")
    assert (code, error) == (0, "")
    assert kept == ["a", "b"]
    assert "cascade" not in printed
    found = commands(printed)
    names = [next(word for word in words if word.startswith("name=")) for words in found[::3]]
    assert names == [f"name=planned/{kind}_{number}" for number in (1, 2) for kind in ("student", "control")]
    assert "loss@loss.labels=dice_focal" in found[0]
    assert not any(word.startswith("loss.heads") for word in found[0])  # all heads, which are masks
    for fold in range(3):
        read = Teachers.read(tmp_path / "plan" / "teachers", SPLIT, fold, {"segmentation": CLASSES})
        assert (read.targets.members, list(read.targets.images)) == (("a", "b"), [])
    name = SPLIT.folds[0].train[0]
    assert (read_teacher_maps(tmp_path / "plan" / "teachers", name, read.targets)["segmentation"] == 102).all()
