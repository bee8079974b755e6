"""Every rule of a plan, on facts that are made up: what it decides, and where it turns."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.verbs.plan._inputs import HEAVY, LIGHT, facts

from hsl.errors import ConfigError
from hsl.verbs.plan import rules, views
from hsl.verbs.plan.views import Budget, View

GIB = 2**30
DAY = Budget(86400.0, 64 * GIB)


@given(st.lists(st.floats(1, 80), min_size=1, max_size=30), st.sampled_from([(256, 256), (200, 512), (96, 64)]),
       st.floats(10, 1e6))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_smallest_tenth_keeps_three_pixels_or_what_it_has(
    across: list[float], size: tuple[int, int], seconds: float
) -> None:
    made = facts({"a": across}, size)
    view = views.choose_view(made, LIGHT, Budget(seconds, 64 * GIB))
    if not view.patches:  # patches are at the scale of the source
        scale = min(view.height / size[0], view.width / size[1])
        kept = np.quantile(np.sort(across) * scale, 0.1, method="lower")
        assert kept >= min(3.0, np.quantile(across, 0.1, method="lower")) - 1e-6


def test_the_size_of_pictures() -> None:
    assert views.choose_view(facts({"a": [12.0] * 20}), LIGHT, Budget(600, GIB)).height == 128
    assert views.choose_view(facts({"a": [4.0] * 20}), LIGHT, Budget(1000, GIB)).height == 192
    assert views.choose_view(facts({"a": [4.0] * 20}), LIGHT, DAY).height == 256  # no larger than the source
    cracks = {"crack": [3.0] * 20, "stain": [77.0] * 20}  # as on magnetic tiles, of unlike size
    tiles = facts(cracks, (320, 270), heights=(191, 320, 403), widths=(103, 270, 512))
    view = views.choose_view(tiles, LIGHT, DAY)
    assert view.patches is False or view.height == 160
    large = facts({"a": [2.0] * 20}, (4000, 6000), num_images=50)
    view = views.choose_view(large, LIGHT, DAY)
    assert view.patches
    assert view.height == 128
    assert "2.0 px across" in view.reason
    alone = views.choose_view(facts({}, (1000, 500), num_masks=0), LIGHT, DAY)
    assert (alone.height, alone.width) == (448, 224)


def test_the_network_by_memory_and_time() -> None:
    made, view = facts({"a": [9.0]}), View(128, 128)
    assert views.choose_network(made, view, [HEAVY, LIGHT], DAY)[0] == HEAVY
    assert views.choose_network(made, view, [HEAVY, LIGHT], Budget(600, 64 * GIB))[0] == LIGHT
    assert views.choose_network(made, view, [HEAVY, LIGHT], Budget(86400, GIB))[0] == LIGHT
    random = replace(HEAVY, has_weights=False)
    chosen, reason = views.choose_network(made, view, [random, LIGHT], DAY)
    assert chosen == LIGHT
    assert "at hand" in reason
    assert "starts random" in views.choose_network(made, view, [random], DAY)[1]
    with pytest.raises(ConfigError, match=r"at least (\d+)MiB") as error:
        views.choose_network(made, view, [HEAVY, LIGHT], Budget(600, 2**20))
    advised = int(str(error.value).partition("at least ")[2].partition("MiB")[0]) * 2**20
    assert views.choose_network(made, view, [HEAVY, LIGHT], Budget(600, advised))[0] == LIGHT


def test_the_batch() -> None:
    made, view = facts({"a": [9.0]}), View(256, 256)
    sizes = {
        seconds: views.batch_size(made, view, LIGHT, Budget(seconds, 64 * GIB)).values["data.batch_size"]
        for seconds in (60, 600, 86400)
    }
    assert sizes == {60: 4, 600: 8, 86400: 16}
    assert views.batch_size(made, view, HEAVY, Budget(86400, 2 * GIB)).values["data.batch_size"] == 2
    assert views.batch_size(replace(made, num_images=3), view, LIGHT, DAY).values["data.batch_size"] == 2


def test_loss_and_sampling() -> None:
    made = facts({"a": [9.0], "b": [9.0]})
    rare = replace(made, classes=(made.classes[0], replace(made.classes[1], share=0.001, num_images=60)))
    assert (rules.loss(made).choice, rules.loss(rare).choice) == ("common_pixels", "rare_pixels")
    assert rules.sampling(made) is None
    assert "`b` (60)" in str(rules.sampling(rare))
    absent = replace(made, classes=(made.classes[0], replace(made.classes[1], share=0.0, num_images=0)))
    assert rules.loss(absent).choice == "common_pixels"
    assert rules.sampling(absent) is None
    labels = replace(made, num_masks=0, labels={"x": 3})
    assert rules.loss(labels).choice == "labels_alone"
    assert rules.sampling(labels) is None


def test_the_orientation_is_asked_and_never_guessed() -> None:
    made, view = facts({"a": [9.0]}), View(256, 256)
    found = {}
    for word in rules.ORIENTATIONS:
        settings_ = list(rules.augmentation(made, view, 50, word))
        values = {key: value for one in settings_ for key, value in one.values.items()}
        found[word] = values["augmentation.flips"]["vertical"], "augmentation.rot90" in values, settings_[0].open
    assert found == {"any": (0.5, False, False), "upright": (None, True, False), "fixed": (None, True, False),
                     "unknown": (None, True, True)}  # fmt: skip
    grey = {key for one in rules.augmentation(replace(made, colour=False), view, 50, "any") for key in one.values}
    assert {"augmentation.colour.hue", "augmentation.colour.saturation"} <= grey
    thin = {key for one in rules.augmentation(facts({"a": [3.0]}), view, 50, "any") for key in one.values}
    assert "augmentation.blur" in thin
    few = {key for one in rules.augmentation(made, view, 3, "any") for key in one.values}
    assert "augmentation.rotation" in few


def test_folds_and_the_part_that_chooses() -> None:
    cases = {10: 5, 9: 3, 6: 3, 5: 2, 4: 2, 1: 2}
    assert {least: rules.num_folds({"a": 50, "b": least, "c": 0}, 60)[0] for least in cases} == cases
    assert "fewer than two a fold" in rules.num_folds({"b": 3}, 60)[1]
    assert rules.num_folds({}, 7)[0] == 3
    made = facts({"a": [9.0]})
    few = replace(made, classes=(replace(made.classes[0], num_groups=9),))
    assert rules.stop_fraction(made).values["data.split.stop_fraction"] == 0.1
    assert rules.stop_fraction(few).values["data.split.stop_fraction"] == 0.0


def test_what_so_many_groups_can_show() -> None:
    from scipy import stats

    standard = 10 / math.sqrt(175)
    expected = standard * (stats.t.ppf(0.975, 174) + stats.t.ppf(0.8, 174))
    assert f"{expected:.1f} points" in rules.visible_difference(175)
    assert "too few" in rules.visible_difference(5)
