"""The ablation table: what it says of a variant is what the comparison of the two says, the right way round."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hsl.errors import ConfigError
from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.ablation import ablation_table, changed, check_base, find_base
from hsl.reports.statistics.comparisons import compare, pooled_estimates
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.tables.score_tables import interval_cell
from hsl.run_folder.run import ScoredOn

WRONG = {"base": 20, "focal": 10, "flat": 40}


@pytest.fixture
def models(make_run, tmp_path):
    for name, wrong in WRONG.items():
        loss = {"gamma": 2.0} if name == "focal" else {"gamma": 0.0}
        for fold in range(3):
            # pictures differ, so that a difference has a spread
            matrix = [[100 + 7 * fold, wrong, 0], [wrong + fold, 80, 0], [0, 0, 0]]
            make_run(name, "resnet50", fold, matrix, config={"loss": loss, "decoder": {"name": name == "flat"}})
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    return sorted(found, key=lambda model: -model.summary("miou", ScoredOn("val")).mean)


def rows_of(models, base):
    settings = (ScoredOn("val"), 500, 0)
    pairs = compare(models, *settings)
    means = {model.label: model.summary("miou", ScoredOn("val")) for model in models}
    table = ablation_table(models, base, "miou", means, pooled_estimates(models, *settings, "miou"), pairs)
    keys = [column.key for column in table.columns]
    return pairs, [dict(zip(keys, row, strict=True)) for row in table.rows], table


def test_every_variant_against_the_base(models):
    base = find_base(models, "base")
    pairs, (first, *variants), table = rows_of(models, base)
    assert (first["model"], first["changed"], first["difference"]) == (base.label, "the base", None)
    assert [row["model"] for row in variants] == [model.label for model in models if model is not base]
    assert variants[0]["difference"] > 0 > variants[1]["difference"]
    for row in variants:
        pair = next(one for one in pairs if {one.first, one.second} == {base.label, row["model"]})
        sign = 1 if pair.first == row["model"] else -1
        assert row["difference"] == pytest.approx(sign * pair.score.mean)
        assert row["adjusted_p"] == pair.score.adjusted_p, "adjusted for all pairs of the report: one verdict a pair"
        ends = sorted((sign * pair.score.adjusted.low, sign * pair.score.adjusted.high))
        assert row["interval_adjusted"] == interval_cell(Interval(0, *ends), "points")
        assert row["verdict"].startswith("no difference shown" if not pair.verdict.winner else ("better", "worse"))
        assert row["groups"] == pair.score.num_units
    assert "Dunnett" in table.caption
    assert "against the base" in table.to_latex()


def test_what_was_changed_is_said(models):
    base = find_base(models, "base")
    found = {model.runs[0].config["name"]: changed(model, base) for model in models}
    assert found == {"base": "the encoder", "focal": "loss.gamma=2.0", "flat": "decoder.name=true"}


def test_of_an_exchanged_part_only_the_name_is_said(make_run, tmp_path):
    parts = {
        "base": {"_target_": "hsl.Dice", "smooth": 1.0},
        "other": {"_target_": "hsl.Two", "gamma": 2.0, "pixel": {"_target_": "hsl.Focal"}},
    }
    for name, loss in parts.items():
        make_run(name, confusion=[[5, 1, 0], [1, 5, 0], [0, 0, 0]], config={"loss": loss, "size": len(name)})
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    base, other = (find_base(found, name) for name in parts)
    assert sorted(changed(other, base).split(", ")) == ["loss=Two", "size=5"]


def test_the_base_goes_by_label_or_by_the_name_of_its_runs(models):
    base = find_base(models, "base")
    assert find_base(models, base.label) is base
    assert find_base(models, "nothing") is None
    check_base([models], None)
    check_base([[], models], "base")


def test_an_unknown_base_lists_the_labels_and_what_it_says_to_type_works(models):
    with pytest.raises(ConfigError, match=r"`base` should be the label.*Found `base = dream`") as caught:
        check_base([models], "dream")
    (word,) = shlex.split(str(caught.value).split("`")[-2])
    parsed = OverridesParser.create().parse_override(word).value()
    assert find_base(models, parsed) is models[0]
    with pytest.raises(ConfigError, match=r"there is none. Found `base = dream`\.$"):
        check_base([[]], "dream")


def test_runs_of_one_name_that_are_two_models_are_told_apart_by_label(make_run, tmp_path):
    for i in range(2):
        make_run("same", f"e{i}", confusion=[[5, 1, 0], [1, 5, 0], [0, 0, 0]], time=f"2026-01-0{i + 1}_00-00-00")
    found = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    with pytest.raises(ConfigError, match=r"`base` should name one model. Found 2.*`e0`, `e1`"):
        check_base([found], "same")
    assert find_base(found, "e1").label == "e1"
