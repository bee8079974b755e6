"""Stage 3, stacking: classifiers on the members' probabilities."""

from functools import partial

from hsl.config.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from hsl.ensembles.learners import MakeClassifier, gradient_boosting, learn, logistic_regression, multilayer_perceptron
from hsl.ensembles.nested import Combined, Fit
from hsl.ensembles.rows import Rows
from hsl.inference.combining import side_by_side


def stacking(
    inverse_penalty: PositiveFloat = 0.1,
    hidden: PositiveInt = 16,
    penalty: NonNegativeFloat = 10.0,
    trees: PositiveInt = 50,
    leaves: PositiveInt = 2,
    seed: Seed = 0,
) -> dict[str, Fit]:
    """The variants of the stage: stacked generalisation (Wolpert 1992) with three learners.

    ``logistic``: logistic regression. ``mlp``: a perceptron with a hidden layer. ``gradient_boosting``: histogram
    gradient boosting. Their inputs are the members' probabilities, next to each other. The defaults are strict: over a
    few hundred rows of five members the fitted score stays within the 10 points of the nested one that the isolation
    audit asks for (simulated).

    Args:
        inverse_penalty: C of the logistic regression.
        hidden: width of the perceptron.
        penalty: its weight decay.
        trees: of the gradient boosting.
        leaves: of each tree.
        seed: of the learners.
    """
    learners: dict[str, MakeClassifier] = {
        "logistic": partial(logistic_regression, inverse_penalty),
        "mlp": partial(multilayer_perceptron, hidden, penalty, seed),
        "gradient_boosting": partial(gradient_boosting, trees, leaves, seed),
    }
    return {f"stacking/{name}": partial(stacked, make) for name, make in learners.items()}


def stacked(make: MakeClassifier, rows: Rows) -> Combined:
    """Fit one learner on the probabilities of all members."""
    rows = rows.labelled()
    learned = learn(make, side_by_side(rows.probabilities), rows)
    return Combined(
        rows.members, rows.classes, lambda new: learned(side_by_side(new.probabilities)), {}, learned.formula
    )
