import math

import numpy as np
import pytest
from scipy import stats

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.statistics.variance import variance_components, variance_table
from hsl.run_folder.run import ScoredOn


def test_unequal_numbers_of_seeds_against_the_f_test_of_scipy():
    folds = [[0.5, 0.52, 0.55], [0.61, 0.64], [0.4, 0.47, 0.44, 0.43]]
    found = variance_components(folds)
    within = sum(np.var(fold) * len(fold) for fold in folds) / (9 - 3)
    between = stats.f_oneway(*folds).statistic * within
    assert found.seed == pytest.approx(within)
    assert found.split == pytest.approx((between - within) / ((9 - 29 / 9) / 2))  # 29 = 9 + 4 + 16


def test_the_components_are_unbiased():
    rng = np.random.default_rng(0)
    cut = []
    for _ in range(3000):
        folds = rng.normal(0, 2.0, (4, 1)) + rng.normal(0, 1.0, (4, 3))
        cut.append(variance_components([fold[: 2 + i % 2].tolist() for i, fold in enumerate(folds)]))
    assert np.mean([each.seed for each in cut]) == pytest.approx(1.0, rel=0.05)
    assert np.mean([each.split for each in cut]) == pytest.approx(4.0, rel=0.08)  # hardly ever cut at 0


def test_a_negative_component_is_zero_and_said():
    found = variance_components([[0.0, 1.0], [0.1, 0.9]])
    assert found.split == 0
    assert "negative" in found.note


def test_what_is_not_known_is_nan_and_said():
    one_seed = variance_components([[0.5], [0.6], [0.7]])
    assert math.isnan(one_seed.seed)
    assert math.isnan(one_seed.split)
    assert "one seed per fold" in one_seed.note
    one_fold = variance_components([[0.5, 0.7]])
    assert one_fold.seed == pytest.approx(0.02)
    assert math.isnan(one_fold.split)
    assert "one fold" in one_fold.note


def test_the_table(make_run, tmp_path):
    for fold, seed, right in [(0, 0, 80), (0, 1, 84), (1, 0, 60), (1, 1, 64)]:
        make_run("a", "a", fold, [[right, 100 - right, 0], [0, 100, 0], [0, 0, 0]], seed=seed)
        make_run("b", "b", fold, None, seed=0, time=f"t{seed}")
    make_run("c", "c", status="failed")
    models = models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")
    table = variance_table(sorted(models, key=lambda m: m.label), "pixel_accuracy", ScoredOn("val"))
    keys = [column.key for column in table.columns]
    first, second = (dict(zip(keys, row, strict=True)) for row in table.rows)
    found = variance_components([[0.9, 0.92], [0.8, 0.82]])
    assert (first["folds"], first["seeds"], first["score"].mean) == (2, "2", pytest.approx(0.86))
    assert (first["split_std"], first["seed_std"]) == pytest.approx((math.sqrt(found.split), math.sqrt(found.seed)))
    assert first["seed_share"] == pytest.approx(found.seed / (found.seed + found.split))
    assert "not known" in second["note"]
    assert table.texts[1][keys.index("seed_std")] == "–"
