import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.reports.data_sets import UNNAMED, data_sets
from hsl.reports.naming import differences, flatten, labels
from hsl.reports.plots.plot_files import save_plots
from hsl.run_folder.layout import foldless
from hsl.run_folder.run import gather
from hsl.verbs.report import report

A = {"encoder.name": '"tu-convnext_atto.d2_in1k"', "encoder.stride": "32", "lr": "0.001"}
B = {"encoder.name": '"mit_b0"', "encoder.stride": "16", "lr": "0.001"}
FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]


def test_flatten_leaves_out_patterns_that_cross_dots():
    config = {
        "fold": 1,
        "data": {"root": "/x", "size": [2, 3], "cache": {"dir": "y"}},
        "empty": {},
        "off": None,
    }
    flat = flatten(config, ["fold", "*.root", "*cache*"])
    assert flat == {"data.size": "[2, 3]", "empty": "{}"}


def test_the_label_is_the_encoder_without_mark_and_tag():
    assert labels([A, B], "encoder.name") == ["convnext_atto", "mit_b0"]


def test_tags_are_shown_when_they_alone_differ():
    other = A | {"encoder.name": '"tu-convnext_atto.in1k"'}
    assert labels([A, other], "encoder.name") == ["convnext_atto.d2_in1k", "convnext_atto.in1k"]


def test_what_the_encoder_decides_is_no_difference_but_other_keys_are():
    assert differences([A, B], "encoder.name") == [{}, {}]
    assert differences([A, B | {"lr": "0.1"}], "encoder.name") == [{"lr": "0.001"}, {"lr": "0.1"}]


def test_copies_of_a_value_count_once_and_the_shortest_key_is_kept():
    models = [A | {"a.b.mean": "1", "encoder.mean": "1"}, B | {"a.b.mean": "2", "encoder.mean": "2"}]
    assert differences(models, "encoder.name") == [{}, {}]  # interpolated from the encoder
    models = [A | {"data.size": "1", "task.x.size": "1"}, A | {"data.size": "2", "task.x.size": "2"}]
    assert differences(models, "encoder.name") == [{"data.size": "1"}, {"data.size": "2"}]


def test_weights_of_one_encoder_are_a_difference():
    models = [A | {"encoder.weights": '"auto"'}, A | {"encoder.weights": "null"}]
    assert labels(models, "encoder.name") == ["convnext_atto · weights=auto", "convnext_atto · weights=null"]


def test_targets_are_named_by_their_part():
    models = [
        A | {"loss._target_": '"hsl.losses.overlap.Dice"'},
        A | {"loss._target_": '"hsl.losses.cross_entropy.Focal"'},
    ]
    assert labels(models, "encoder.name") == ["convnext_atto · loss=Dice", "convnext_atto · loss=Focal"]


def test_what_is_null_is_told_from_what_another_call_does_not_have():
    built = A | {"encoder._target_": '"hsl.models.encoders.build"'}
    assert labels([built | {"encoder.weights": '"auto"'}, built], "encoder.name") == [
        "convnext_atto · weights=auto",
        "convnext_atto · weights=null",
    ]
    sgd, adam = (A | {"optimizer._target_": f'"torch.optim.{name}"'} for name in ("SGD", "Adam"))
    names = labels([sgd | {"optimizer.momentum": "0.9"}, adam], "encoder.name")
    assert names[1].endswith("optimizer=torch.optim.Adam · momentum=–")


def test_an_absent_key_is_a_difference():
    assert labels([A, A | {"extra": "1"}], "encoder.name") == [
        "convnext_atto · extra=–",
        "convnext_atto · extra=1",
    ]


def test_long_labels_are_cut_and_stay_unique():
    models = [A | {f"k{i}": str(value) for i in range(5)} for value in (1, 2)]
    models[1] |= {"k0": "1", "k1": "1", "k2": "1", "k3": "7", "k4": "8"}
    names = labels(models, "encoder.name")
    assert len(set(names)) == 2
    models = [A | {f"k{i}": str(i + 10 * (i > 2) * n) for i in range(3, 8)} for n in range(3)]
    models = [m | {"a": "1", "b": "1", "c": "1"} if n else m for n, m in enumerate(models)]
    names = labels(models, "encoder.name")
    assert all(len(name) < 80 for name in names)
    assert len(set(names)) == 3


def test_one_model_differs_from_nothing():
    assert labels([A], "encoder.name") == ["convnext_atto"]
    assert labels([], "encoder.name") == []


def test_no_encoder_at_all():
    assert labels([{"lr": "1"}, {"lr": "2"}], "encoder.name") == ["– · lr=1", "– · lr=2"]


def test_with_many_differences_the_few_that_tell_the_models_apart_are_shown():
    """Groups go by the innermost part they have; copies below task and what follows from the rest are left out."""
    fixed = {"e.name": '"a"', "weighting._target_": '"hsl.weighting.scalar.Fixed"', "data.tasks": "null", "w": "1"}
    flat = {**fixed, "decoder._target_": '"hsl.models.decoders.segformer"', "loss.gamma": "1"}
    multi = {"decoder._target_": '"hsl.models.x.hierarchical"', "data.tasks": '"coral"', "loss.gamma": "2", "w": "2"}
    aggregation = {"e.name": '"a"', "weighting._target_": '"hsl.weighting.aggregation.Aggregation"', **multi}
    nash = {**aggregation, "weighting.method._target_": '"hsl.weighting.gramian.nash_mtl"'}
    mgda = {**aggregation, "weighting.method._target_": '"hsl.weighting.gramian.mgda"'}
    assert labels([flat, nash, mgda, {**fixed, **multi}], "e.name") == [
        "a · weighting=Fixed · decoder=segformer",
        "a · weighting=nash_mtl · decoder=hierarchical",
        "a · weighting=mgda · decoder=hierarchical",
        "a · weighting=Fixed · decoder=hierarchical",
    ]


def test_pseudo_labels_read_well():
    tiers = {"A": 1.0, "B": 0.5, "C": None}
    part = {
        "_target_": "hsl.data.labels.pseudo_labels.PseudoLabels",
        "folder": "outputs/labels/fold0",
        "tier_weights": tiers,
    }
    pseudo = {"encoder": {"name": "a"}, "data": {"labels": {**part, "weigh_by_confidence": False, "unchecked": True}}}
    plain = {"encoder": {"name": "a"}, "data": {"labels": None}}
    assert labels([flatten(pseudo), flatten(plain)], "encoder.name") == ["a · labels=PseudoLabels", "a · labels=none"]
    refined = {**part, "folder": "outputs/labels/fold0_round_1"}
    rounds = [flatten({"encoder": {"name": "a"}, "data": {"labels": each}}) for each in (part, refined)]
    assert labels(rounds, "encoder.name") == [
        "a · folder=outputs/labels/fold0",
        "a · folder=outputs/labels/fold0_round_1",
    ]


def test_a_part_that_is_off_is_a_choice_like_the_others():
    off = A
    on = A | {"scheduler._target_": '"hsl.tasks.schedulers.Poly"'}
    assert labels([off, on], "encoder.name") == ["convnext_atto · scheduler=none", "convnext_atto · scheduler=Poly"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            '"outputs/cam/fold2/2026-01-31_10-00-00-s1/checkpoints/best.ckpt"',
            '"outputs/cam/fold*/checkpoints/best.ckpt"',
        ),
        ('"labels/fold2"', '"labels/fold*"'),
        ('"labels/fold2_round_1"', '"labels/fold*_round_1"'),
        ('["a/fold2/x", "b/fold1/x"]', '["a/fold*/x", "b/fold1/x"]'),
        ('"manifold2/fold22/fold_2"', '"manifold2/fold22/fold_2"'),
        ("2", "2"),
    ],
)
def test_paths_below_runs_of_the_same_fold_are_alike_in_all_folds(value, expected):
    assert foldless(value, 2) == expected


def test_an_ablation_is_labelled_by_what_is_off():
    parts = {f"loss.weights.{name}": "1.0" for name in ("edge", "hv", "hole", "total")}
    models = [A | parts, *[A | parts | {off: "0"} for off in parts]]
    assert labels(models, "encoder.name") == [
        "convnext_atto",
        *[f"convnext_atto · {part}=0" for part in ("edge", "hv", "hole", "total")],
    ]


@pytest.fixture
def found(tmp_path):
    def sort():
        sets, unknown = data_sets(gather([str(tmp_path / "outputs")]))
        named = {one.name: sorted(run.folder.parent.parent.name for run in one.runs) for one in sets}
        return named, [run.folder.parent.parent.name for run in unknown]

    return sort


def on(name, **hashes):
    told = {"annotations_sha256": {"train": "t", "val": "v", "test": "w"} | hashes} if hashes else {}
    return {"data": name, **told}


def test_equal_runs_on_the_same_data_are_one_set(make_run, found):
    make_run("a", "a", 0, provenance=on("coral"))
    make_run("b", "b", 1, provenance=on("coral"))
    assert found() == ({"coral": ["a", "b"]}, [])


def test_runs_that_tell_nothing_of_their_data_are_still_a_set(make_run, found):
    make_run("a", "a")
    assert found() == ({UNNAMED: ["a"]}, [])


def test_names_pictures_and_test_parts_set_data_apart(make_run, found, split_of):
    make_run("a", "a", provenance=on("coral"))
    make_run("b", "b", provenance=on("steel"))
    make_run("c", "c", provenance=on("coral"), split=split_of(prefix="q"))
    make_run("d", "d", provenance=on("coral"), split={**split_of(), "test": ["t0"]})
    named, unknown = found()
    assert unknown == []
    assert named.pop("steel") == ["b"]
    assert sorted(named.values()) == [["a"], ["c"], ["d"]]
    assert all(name.startswith("coral (split ") for name in named)
    assert sum("(test part " in name for name in named) == 2


def test_masks_that_changed_between_runs_make_two_sets(make_run, found):
    for fold in (0, 1):
        make_run("a", "a", fold, provenance=on("coral", val=f"old {fold}"))
        later = on("coral", val=f"new {fold}")
        make_run("b", "b", fold, provenance=later, time="2026-02-02_00-00-00")
    named, _ = found()
    assert sorted(named.values()) == [["a", "a"], ["b", "b"]]
    assert all("annotations from" in name for name in named)


def test_a_run_of_another_fold_belongs_to_the_state_that_had_begun(make_run, found):
    make_run("a", "a", 0, provenance=on("coral", val="old"))
    make_run("a", "a", 1, provenance=on("coral", val="same"), time="2026-01-02_00-00-00")
    make_run("b", "b", 0, provenance=on("coral", val="new"), time="2026-02-02_00-00-00")
    make_run("b", "b", 1, provenance=on("coral", val="same"), time="2026-02-03_00-00-00")
    assert sorted(found()[0].values()) == [["a", "a"], ["b", "b"]]


def test_unlike_training_masks_are_the_same_data(make_run, found):
    make_run("a", "a", provenance=on("coral", train="masks"))
    make_run("b", "b", provenance=on("coral", train="pseudo-labels"))
    assert list(found()[0].values()) == [["a", "b"]]


def test_a_run_that_ended_early_goes_where_its_settings_are(make_run, found, split_of):
    early = {"provenance": {"split_sha256": None}, "status": "failed", "config": {"data": {"root": "/steel"}}}
    make_run("a", "a", provenance=on("coral"), config={"data": {"root": "/coral"}})
    make_run("b", "b", provenance=on("steel"), config={"data": {"root": "/steel"}}, split=split_of(prefix="q"))
    (make_run("c", "c", **early) / "splits.json").unlink()
    early["config"] = {"data": {"root": "/elsewhere"}}
    (make_run("d", "d", **early) / "splits.json").unlink()
    assert found() == ({"coral": ["a"], "steel": ["b", "c"]}, ["d"])


@pytest.fixture
def run_report(tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr("hsl.reports.report.save_plots", lambda plots, *rest: save_plots(plots[:1], *rest))

    def run(*overrides):
        common = [f"runs={tmp_path}/outputs/*", f"output={tmp_path}/report", "resamples=100", "num_pictures=0"]
        with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
            return report(compose("report", [*common, *overrides]))

    return run


def test_equal_settings_on_two_data_sets_never_replace_each_other(make_run, run_report, split_of, capsys):
    """The same model, fold and seed: by its settings alone the newer one would take the place of the other."""
    make_run("a", "net", 0, provenance=on("coral"))
    make_run("b", "net", 0, FULL, provenance=on("steel"), split=split_of(prefix="q"), time="2026-03-03_00-00-00")
    page = run_report()
    results = json.loads((page.parent / "cv_results.json").read_text())
    told = {one["data"]: one for one in results["data_sets"]}
    assert list(told) == ["coral", "steel"]
    assert [told[name]["models"][0]["label"] for name in told] == ["net", "net"]
    scores = [told[name]["models"][0]["parts"]["val"]["plain"]["pooled"]["miou"] for name in told]
    assert scores == [pytest.approx(50 / 100 / 2 + 50 / 150 / 2 + 1 / 3 - 1 / 3, abs=0.2), 1.0]
    for name in told:
        below = page.parent / told[name]["folder"]
        assert {"index.html", "cv_results.json", "tables"} <= {path.name for path in below.iterdir()}
    text, printed = page.read_text(encoding="utf8"), capsys.readouterr().out
    for name in told:
        assert f"{name}</h2>" in text
        assert f'href="{name}/index.html"' in text
        assert f"the only model with pixel scores on {name}" in " ".join(printed.split())


def test_one_data_set_is_written_where_it_was_and_named(make_run, run_report):
    make_run("a", "a", provenance=on("coral"))
    make_run("b", "b", 0, FULL, provenance=on("coral"))
    page = run_report()
    results = json.loads((page.parent / "cv_results.json").read_text())
    assert results["data"] == "coral"
    assert results["answer"]["pixels"][0].startswith("Nothing can be said between the 2 models on coral: too few")
    assert results["answer"]["pixels"][0][:60] in page.read_text(encoding="utf8")
    assert (page.parent / "tables" / "ranking.csv").is_file()
