"""How unlike the members are: what an ensemble could gain at most."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.rows import Floats, Rows
from hsl.metrics.images.image_scores import predicted_labels


def right_answers(rows: Rows) -> NDArray[np.bool_]:
    """``(M, N)``: whether each member is right; where several classes may be shown, about all whose truth is known."""
    shown, unknown = rows.truth == 1, np.isnan(rows.truth)
    return np.array(
        [((predicted_labels(each, rows.several) == shown) | unknown).all(axis=1) for each in rows.probabilities]
    )


def disagreement(rows: Rows) -> Floats:
    """``(M, M)``: share of the rows that two members answer unlike, labelled or not."""
    answers = np.array([predicted_labels(each, rows.several) for each in rows.probabilities])
    return _by_pair(rows.num_members, lambda i, j: float((answers[i] != answers[j]).any(axis=1).mean()))


def q_statistic(rows: Rows) -> Floats:
    """``(M, M)``: ``(ad - bc) / (ad + bc)`` over labelled rows: a both right, d both wrong, b and c one of the two.

    1: they err on the same rows; 0: as independent members would; below: on unlike rows. NaN where ad + bc = 0. Source:
    Kuncheva & Whitaker 2003, "Measures of Diversity in Classifier Ensembles", equation 4.
    """
    right = right_answers(rows.labelled())

    def of_pair(i: int, j: int) -> float:
        both, neither = (right[i] & right[j]).sum(), (~right[i] & ~right[j]).sum()
        first, second = (right[i] & ~right[j]).sum(), (~right[i] & right[j]).sum()
        total = both * neither + first * second
        return float((both * neither - first * second) / total) if total else float("nan")

    return _by_pair(rows.num_members, of_pair)


def share_with_one_right(rows: Rows) -> float:
    """Share of the labelled rows that at least one member answers right: no choice among the members scores higher."""
    return float(right_answers(rows.labelled()).any(axis=0).mean())


def wrong_ids(rows: Rows) -> dict[str, tuple[str, ...]]:
    """Ids of the labelled rows that some members get wrong.

    Returns:
        ``all``: every member does; ``one``: exactly one does; ``one_right``: all but exactly one do.
    """
    rows = rows.labelled()
    wrong = (~right_answers(rows)).sum(axis=0)
    chosen = {"all": wrong == rows.num_members, "one": wrong == 1, "one_right": wrong == rows.num_members - 1}
    return {name: tuple(rows.ids[i] for i in np.flatnonzero(mask)) for name, mask in chosen.items()}


def _by_pair(num: int, of_pair: Callable[[int, int], float]) -> Floats:
    return np.array([[of_pair(i, j) for j in range(num)] for i in range(num)])
