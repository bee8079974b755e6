import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.page.weighting_hints import MIN_STEPS, degraded, hints
from hsl.run_folder.run import ScoredOn

UPGRAD = {"_target_": "hsl.weighting.aggregation.Aggregation", "method": {"_target_": "torchjd.UPGradWeighting"}}
NASH = {"_target_": "hsl.weighting.aggregation.Aggregation", "method": {"_target_": "hsl.weighting.gramian.nash_mtl"}}
PCGRAD = {"_target_": "hsl.weighting.aggregation.Aggregation", "method": {"_target_": "hsl.weighting.gramian.PCGrad"}}


@pytest.fixture
def run(make_run, add_tasks, add_weighting):
    """A multi-task run with a log of its weighting."""

    def make(norms=(), cosines=(), weighting=UPGRAD, fold=0, **more):
        folder = add_tasks(make_run(fold=fold, config={"weighting": weighting}), {"genus": 0.9, "health": 0.5}, fold)
        return add_weighting(folder, norms, cosines, **more)

    return make


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def test_imbalance_names_both_ends_the_medians_and_the_ratio(run, models):
    for fold in range(2):
        run({"genus": 0.6, "health": 0.05, "consistency": 0.0001}, fold=fold)
    (text,) = hints(models())
    assert "gradient of genus (0.6) is 12.0 times that of health (0.05;" in text
    assert "80 logged steps of 2 runs" in text
    assert "weighting=imgrad or weighting=nash_mtl is made for that" in text


def test_conflict_names_the_pair_its_median_and_its_share(run, models):
    cosines = {("genus", "health"): [-0.5, -0.3, 0.1, 0.2, 0.3], ("genus", "fish"): [0.2, -0.9, 0.3, 0.4, 0.5]}
    run({"genus": 1.0, "health": 1.0}, cosines)
    (text,) = hints(models())
    assert "genus and health point apart (cosine below 0) in 40 % of the steps, median cosine +0.10" in text
    assert "pairs pass" not in text
    assert "unrelated" not in text
    assert "weighting=pcgrad is made for that" in text


def test_cosines_near_0_are_called_unrelated_and_of_several_pairs_the_lowest_is_named(run, models):
    run({"genus": 1.0}, {("genus", "health"): [-0.01, 0.01], ("a", "b"): [-0.02, -0.01]})
    (text,) = hints(models())
    assert "a and b point apart (cosine below 0) in 100 %" in text
    assert "2 of 2 pairs pass that" in text
    assert "unrelated rather than opposed" in text


@pytest.mark.parametrize(
    ("norms", "cosines"),
    [
        ({"genus": 5.0, "health": 1.01}, {}),  # below the ratio
        ({"genus": 1.0, "health": 1.0}, {("genus", "health"): [-0.5, -0.5, -0.5, *[0.5] * 7]}),  # 30 %, not more
        ({"genus": 1.0, "health": 1.0, "consistency": 0.01}, {}),  # small by its constant weight
        ({"genus": 9.0}, {}),
        ({}, {}),  # a scalar weighting
    ],
)
def test_no_hint(run, models, norms, cosines):
    run(norms, cosines)
    assert list(hints(models())) == []


def test_no_hint_from_few_steps_or_without_a_log(run, make_run, models):
    run({"genus": 9.0, "health": 1.0}, {("genus", "health"): [-1]}, num_steps=MIN_STEPS - 1)
    make_run("b", "b")
    assert list(hints(models())) == []
    run({"genus": 9.0, "health": 1.0}, {("genus", "health"): [-1]}, fold=1, num_steps=MIN_STEPS)
    assert len(list(hints(models()))) == 2


def test_a_method_that_is_made_for_it_is_not_suggested_again(run, models):
    run({"genus": 9.0, "health": 1.0}, weighting=NASH)
    (text,) = hints(models())
    assert "Its weighting, nash_mtl, is made for that." in text


def test_a_method_is_known_whatever_its_case(run, models):
    run({"genus": 1.0, "health": 1.0}, {("genus", "health"): [-1]}, weighting=PCGRAD)
    (text,) = hints(models())
    assert "Its weighting, pcgrad, is made for that." in text


def test_solver_failures_past_1_per_cent_are_a_warning(run, models, tmp_path):
    run({"genus": 1.0, "health": 1.0}, failures=4)
    run({"genus": 1.0, "health": 1.0}, failures=5, fold=1)
    found = models()
    (text,) = degraded(found)  # 4 of 400 is 1 %, not more
    assert "fold 1, seed 0: 5 of 400 steps (1.2 %)." in text
    assert "fold 0" not in text
    warnings = [note.text for note in notes_on(gather([str(tmp_path / "outputs")]), found, ScoredOn("val"))]
    assert text in warnings
    levels = {note.text: note.level for note in notes_on(gather([str(tmp_path / "outputs")]), found, ScoredOn("val"))}
    assert levels[text] == "warning"


def test_a_single_head_with_several_objectives_is_judged_by_all_of_them(make_run, add_weighting, models):
    add_weighting(make_run(), {"dice": 9.0, "focal": 1.0}, objectives=("dice", "focal"))
    (text,) = hints(models())
    assert "gradient of dice (9) is 9.0 times that of focal (1;" in text
