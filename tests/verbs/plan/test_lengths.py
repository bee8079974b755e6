"""What a fold spends its time on: no plan takes more than it was given."""

from dataclasses import replace

import pytest
from tests.verbs.plan._inputs import LIGHT, facts

from hsl.verbs.plan.fingerprint import Fingerprint
from hsl.verbs.plan.lengths import MOST_EPOCHS, MOST_VALIDATIONS, Length, choose_length, length_settings
from hsl.verbs.plan.views import Budget, View

GIB = 2.0**30
WHOLE, PATCH = View(256, 256), View(128, 128, patches=True)


def chosen(made: Fingerprint, view: View, seconds: float, stop: float = 0.0) -> Length:
    return choose_length(made, view, LIGHT, Budget(seconds, GIB), stop)


def spent(made: Fingerprint, view: View, length: Length) -> float:
    return length.epochs * made.num_images * LIGHT.seconds * view.megapixels + length.beside


@pytest.mark.parametrize("view", [WHOLE, PATCH])
@pytest.mark.parametrize("stop", [0.0, 0.1])
def test_a_fold_takes_no_more_than_its_time(view: View, stop: float) -> None:
    """Training, validations and scores together, from the shortest where plain scores leave a fifth for training."""
    small = facts({"a": [9.0]})
    large = replace(small, num_val=3000, num_test=500, heights=(1000,) * 3, widths=(700,) * 3)
    for made in (small, large):
        least = 1.26 * spent(made, view, chosen(made, view, 1.0, stop))  # one epoch, one validation
        for factor in (1.0, 1.3, 2, 5, 40, 1000):
            length = chosen(made, view, least * factor, stop)
            assert spent(made, view, length) <= least * factor * 1.0001
            assert 1 <= length.epochs <= MOST_EPOCHS
            assert 1 <= length.validations <= min(MOST_VALIDATIONS, length.epochs)
            assert length.epochs % length.every == 0  # no epoch is trained that no validation can choose
        assert length.augmented


def test_training_has_four_fifths_where_scoring_is_cheap() -> None:
    made = facts({"a": [9.0]})
    each = made.num_images * LIGHT.seconds * WHOLE.megapixels
    length = chosen(made, WHOLE, 100 * each)
    assert (length.epochs, length.validations, length.augmented) == (80, 20, True)


def test_a_validation_is_a_third_of_a_step_a_picture() -> None:
    made = facts({"a": [9.0]})
    assert chosen(made, WHOLE, 1e4).validating == pytest.approx(150 * 0.256**2 / 3)
    assert chosen(made, WHOLE, 1e4, stop=0.1).validating == pytest.approx(60 * 0.256**2 / 3)
    assert chosen(made, PATCH, 1e4).validating == pytest.approx(150 * 0.256**2 * 2.25 / 3)  # windows of the source


def test_validations_that_are_dear_are_few_and_what_is_left_out_is_said() -> None:
    """Large pictures seen by windows: an epoch of patches is cheaper than a look at the validation part."""
    made = replace(facts({"a": [9.0]}), heights=(1000,) * 3, widths=(1000,) * 3)
    seconds = 60 * made.num_images * LIGHT.seconds * PATCH.megapixels
    length = chosen(made, PATCH, seconds)
    assert length.validations < 5
    assert not length.augmented
    values = {key: value for one in length_settings(made, PATCH, LIGHT, length) for key, value in one.values.items()}
    assert values["callbacks.tta_evaluation"] is None
    assert values["callbacks.early_stopping"] is None
    every = values["trainer.check_val_every_n_epoch"]
    assert -(-values["trainer.max_epochs"] // every) == length.validations
    cheap = length_settings(made, WHOLE, LIGHT, chosen(made, WHOLE, 1e6))
    assert "callbacks.tta_evaluation" not in {key for one in cheap for key in one.values}
