"""The stages of one head, over rows and run folders that are made up."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests._runs import run_maker, split_of

from hsl.ensembles.dense import ImageMaps, combine_maps
from hsl.ensembles.isolation import Check
from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.heads import Head
from hsl.reports.models import models_of
from hsl.run_folder.ensemble import (
    VERSION,
    StoredEnsemble,
    StoredMember,
    StoredRun,
    read_ensemble,
    read_ensemble_rows,
    read_isolation,
    write_ensemble,
)
from hsl.run_folder.run import ScoredOn, read_run
from hsl.verbs.ensemble.artefact import open_ensemble
from hsl.verbs.ensemble.showing.page import write_page
from hsl.verbs.ensemble.showing.tables import asked_table
from hsl.verbs.ensemble.stages import combining
from hsl.verbs.ensemble.stages.combining import Isolation
from hsl.verbs.ensemble.stages.dense_stages import miou_of
from hsl.verbs.ensemble.stages.head_work import HeadSettings, HeadWork, work_on, work_on_dense

MEMBERS = {"a": 1.5, "b": 1.8, "c": 2.2}
CLASSES = ("healthy", "miner", "rust")
HEAD = Head("classification", "image", CLASSES)
VOTES = {"_target_": "hsl.ensembles.votes.votes", "rounds": 5, "bags": 3, "seed": 0}
STAGES = {
    "votes": VOTES,
    "stacking": {"_target_": "hsl.ensembles.stacking.stacking", "trees": 5, "hidden": 2},
}
SETTINGS = HeadSettings(STAGES, 3, "accuracy", 300, 0, "temperature")


class World:
    """Members with known scores on three folds; ``trained`` and ``opened`` may be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.split = folder, split_of(3, 20) | {"test": [f"t0_{i}" for i in range(12)]}
        make = run_maker(folder)
        self.runs = {fold: read_run(make(fold=fold, split=self.split)) for fold in range(3)}
        folds = {name: number for number, fold in enumerate(self.split["folds"]) for name in fold["val"]}
        self.rows, self.test = self.make(folds), self.make(dict.fromkeys(self.split["test"], -1))
        self.trained = {one: {k: fold["train"] for k, fold in enumerate(self.split["folds"])} for one in MEMBERS}
        self.opened: set[str] = set()

    def make(self, folds: dict[str, int]) -> Rows:
        generator = np.random.default_rng(len(folds))
        truth = np.array([int(name.split("_")[1]) % 3 for name in folds])
        raw = [generator.normal(size=(len(folds), 3)) + skill * np.eye(3)[truth] for skill in MEMBERS.values()]
        powers = np.exp(np.stack(raw))
        return Rows.sorted(
            ids=list(folds), groups=[f"g{name.split('_')[0]}{int(name.split('_')[1]) // 2}" for name in folds],
            contents=[f"hash of {name}" for name in folds], labels=truth, classes=CLASSES, several=False,
            members=tuple(MEMBERS), folds=list(folds.values()),
            probabilities=powers / powers.sum(axis=2, keepdims=True),
        )  # fmt: skip

    def work(self, output: str = "out", earlier: str = "none", settings: HeadSettings = SETTINGS) -> HeadWork:
        arguments = (HEAD, self.rows, lambda: self.test, self.runs, self.isolation(), settings)
        work = work_on(*arguments, self.folder / output / HEAD.name, self.folder / earlier / HEAD.name)
        runs = [read_run(path.parent) for path in (self.folder / output).rglob("metrics.json")]
        assert not any(run.image_pictures.get(ScoredOn("test")) for run in runs)  # other heads may have stages to run
        return replace(work, tested=work.test())

    def isolation(self) -> Isolation:
        return Isolation(
            groups=dict(zip(self.rows.ids, self.rows.groups, strict=True)),
            contents=dict(zip(self.rows.ids, self.rows.contents, strict=True)),
            trained=self.trained,
            test_lists=dict.fromkeys(MEMBERS, self.split["test"]),
            opened=lambda: self.opened,
            test_files={"/data/t0_0.png"},
        )

    def page(self, work: HeadWork) -> StoredEnsemble:
        members = {
            name: StoredMember(
                label=name,
                runs={0: StoredRun(folder=f"../{name}", sha256="0")},
                parameters=10**6,
                picture_seconds={"image": 0.02},
            )
            for name in MEMBERS
        }
        return StoredEnsemble(
            version=VERSION, data="leaves", split_sha256="0", inference="plain", members=members,
            heads={HEAD.name: work.stored}, settings=STAGES, epochs_chosen_on_rows=True,
        )  # fmt: skip


def grey(name: str) -> np.ndarray:
    """A picture."""
    del name
    return np.full((20, 30, 3), 99, np.uint8)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, HeadWork]:
    world = World(tmp_path_factory.mktemp("done"))
    return world, world.work()


def test_what_is_stored_gives_the_same_bits_again(done: tuple[World, HeadWork]) -> None:
    world, work = done
    output = world.folder / "out"
    write_ensemble(output, world.page(work))
    assert read_ensemble(output).heads[HEAD.name].recommended == work.judgement.recommended
    assert Rows(**read_ensemble_rows(output / HEAD.name)).digest == world.rows.digest
    allowed = [node["_target_"] for node in STAGES.values()]
    opened = open_ensemble(output, allowed)
    expected = work.variants[work.judgement.recommended](world.test)
    np.testing.assert_array_equal(opened.variants[HEAD.name](world.test), expected)


def test_a_stage_is_taken_up_where_nothing_changed(
    done: tuple[World, HeadWork], capsys: pytest.CaptureFixture[str]
) -> None:
    world, first = done
    second = world.work("again", "out")
    said = capsys.readouterr().out
    assert "votes (kept)" in said
    assert "stacking (kept)" in said
    for name, variant in first.variants.items():
        np.testing.assert_array_equal(second.variants[name].nested, variant.nested)
    changed = HeadSettings({**STAGES, "votes": {**VOTES, "seed": 1}}, 3, "accuracy", 300, 0, "none")
    world.work("other", "out", changed)
    said = capsys.readouterr().out
    assert "votes:" in said
    assert "stacking (kept)" in said


def test_every_variant_is_a_model_of_the_report(done: tuple[World, HeadWork]) -> None:
    world, work = done
    runs = [read_run(path.parent) for path in sorted((world.folder / "out").rglob("metrics.json"))]
    found = {model.label: model.on_images() for model in models_of(runs, ["name", "fold", "seed"], "encoder.name")}
    assert set(found) == set(work.variants)
    for name, variant in work.variants.items():
        right = (variant.nested.argmax(axis=1) == world.rows.labels).mean()
        pooled = found[name].pooled(ScoredOn("val"))
        assert pooled is not None
        assert pooled.overall["accuracy"] == pytest.approx(right)
    tested = {model.label for model in found.values() if model.scores(ScoredOn("test"))}
    assert tested == {"individual/best", "votes/soft", work.judgement.recommended}


def test_a_row_that_its_member_was_trained_on_stops_everything(world: World) -> None:
    world.trained["b"] = {**world.trained["b"], 0: [*world.trained["b"][0], world.split["folds"][0]["val"][0]]}
    with pytest.raises(DataError, match="every fitted row is an out-of-fold row of its member"):
        world.work()
    folder = world.folder / "out" / HEAD.name
    assert any(check["status"] == "violation" for check in read_isolation(folder))
    assert not list(folder.rglob("metrics.json"))
    assert not list(folder.rglob("stage.json"))


def test_a_test_file_that_was_opened_stops_everything(world: World) -> None:
    world.opened = {"/data/t0_0.png"}
    with pytest.raises(DataError, match="no test file was opened before the end"):
        world.work()
    assert not list((world.folder / "out").rglob("metrics.json"))


def test_a_variant_that_learnt_its_rows_by_heart_is_withheld(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, len(world.rows.ids))
    world.rows = replace(world.rows, labels=labels)  # there is nothing to learn
    stages = {**STAGES, "stacking": {**STAGES["stacking"], "trees": 100, "leaves": 8}}
    settings = HeadSettings(stages, 3, "accuracy", 300, 0, "none")
    work = world.work(settings=settings)
    assert "stacking/gradient_boosting" not in work.variants
    assert "its score is withheld" in capsys.readouterr().out
    again = world.work("again", "out", settings)
    assert "stacking/gradient_boosting" not in again.variants
    checks = read_isolation(world.folder / "again" / HEAD.name)
    assert "stacking/gradient_boosting" in {check["stage"] for check in checks if check["status"] == "violation"}


def test_the_page_tells_what_is_recommended(done: tuple[World, HeadWork]) -> None:
    world, work = done
    write_page(world.folder / "out", world.folder / "out", world.page(work), [work], grey)
    page = (world.folder / "out" / "index.html").read_text(encoding="utf-8")
    assert work.judgement.sentence in page
    for text in (
        "Epochs were chosen on these rows",
        "Test part, read once",
        "Isolation audit",
        "Q statistic",
        "milliseconds",
        "Every member is wrong",
        "data:image/jpeg",
    ):
        assert text in page
    runs = ",".join(str(world.folder / name) for name in MEMBERS)
    assert f"hsl analyze &#39;runs=[{runs}]&#39; output=outputs/analysis/fold0</pre>" in page


def test_who_is_asked_about_how_many_pictures() -> None:
    notes = {
        "votes/soft": {},
        "cascade/thresholds": {"thresholds": {"a": 0.7}, "consulted": {"a": 1.0, "cascade_2": 0.25}},
        "boosting/samme": {"alphas": {"a": 2.0, "boosting_2": 0.5}},
        "referee/disputed": {"referee": "referee_1", "consulted": 0.1},
    }
    table = asked_table({name: SimpleNamespace(notes=one) for name, one in notes.items()}, "classification")
    assert [row[1:] for row in table.rows] == [
        ["a", 1.0, 0.7, None],
        ["cascade_2", 0.25, None, None],
        ["a", None, None, 2.0],
        ["boosting_2", None, None, 0.5],
        ["referee_1", 0.1, None, None],
    ]
    assert asked_table({"votes/soft": SimpleNamespace(notes={})}, "classification") is None


def test_a_baseline_may_be_withheld_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few rows the single member that is chosen on all of them can score far better than the one chosen nested."""

    def check_gap(stage: str, fitted: float, nested: float) -> Check:
        status = "violation" if stage == "individual/best" else "passed"
        return Check(stage, "fitted and nested score agree", status, f"{fitted} {nested}")

    monkeypatch.setattr(combining, "check_gap", check_gap)
    work = world.work(settings=HeadSettings({"votes": VOTES}, 3, "accuracy", 300, 0, "none"))
    assert next(model.label for model in work.models) == "votes/soft"
    assert "individual/best" not in {model.label for model in (*work.models, *work.tested)}
    write_page(world.folder / "out", world.folder / "out", world.page(work), [work], grey)


def test_a_stage_of_masks_is_taken_up_where_maps_and_settings_are_the_same(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    truth = {name: generator.integers(0, 2, (6, 8)).astype(np.uint8) for name in world.rows.ids}
    maps = {
        name: np.stack([np.eye(2)[mask].transpose(2, 0, 1) * 90 + generator.integers(0, 120, (2, 6, 8)) for _ in "ab"])
        for name, mask in truth.items()
    }
    head, isolation = Head("segmentation", "dense", ("background", "leaf")), world.isolation()

    def images() -> Iterator[ImageMaps]:
        for i, name in enumerate(world.rows.ids):
            facts = (name, world.rows.groups[i], world.rows.contents[i], int(world.rows.folds[i]), truth[name])
            yield ImageMaps(*facts, maps[name].astype(np.uint8))

    def work(output: str, earlier: str, **changes: Any) -> HeadWork:
        settings = HeadSettings({"votes": VOTES | changes}, 3, "miou", 300, 0, "none")
        places = (world.folder / output / head.name, world.folder / earlier / head.name)
        return work_on_dense(head, ["a", "b"], images, None, world.runs, isolation, settings, *places)

    first = work("one", "none")
    assert "(kept)" not in capsys.readouterr().out
    second = work("two", "one")
    said = capsys.readouterr().out
    assert "individual (kept)" in said
    assert "votes (kept)" in said
    assert second.judgement == first.judgement
    image = next(images())
    for name, variant in first.variants.items():
        again = second.variants[name]
        assert (again.gap, again.members, again.nested.ids) == (variant.gap, variant.members, variant.nested.ids)
        assert miou_of(again.nested) == miou_of(variant.nested)
        one, two = (combine_maps(each.combined, image.maps, ["a", "b"], head.classes) for each in (variant, again))
        np.testing.assert_array_equal(one, two)
    work("three", "one", seed=1)
    said = capsys.readouterr().out
    assert "individual (kept)" in said
    assert "votes (kept)" not in said
    maps[world.rows.ids[0]][0, 0, 0, 0] += 1
    work("four", "one")
    assert "(kept)" not in capsys.readouterr().out
