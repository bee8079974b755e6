"""The pictures that every member of an ensemble gets wrong, or one alone right or wrong, as the page shows them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.ensembles.diversity import right_answers, wrong_ids
from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.metrics.images.image_scores import predicted_labels
from hsl.reports.page.galleries import View
from hsl.reports.page.sections_page import PageSection
from hsl.reports.page.thumbnails import Picture, photo

SHOWN = 12  # pictures of a kind, some 10 kB each
KINDS = {
    "all": "Every member is wrong",
    "one_right": "One member alone is right",
    "one": "One member alone is wrong",
}
ORDER = "One of each group first, those whose true label the members think least likely before others."
GAP = "the picture could not be read: {}"


def error_sections(rows: Rows, picture_of: Callable[[str], Picture]) -> list[PageSection]:
    """A section for each kind of error that the members make.

    Args:
        rows: out-of-fold rows of the members; those without a label are not judged.
        picture_of: reads a picture, RGB ``uint8 (H, W, 3)``, by its id. Where it raises `DataError` the page has a gap
            that says so.
    """
    rows = rows.labelled()
    # of two members, one is right where the other is wrong; of one member every error is its own
    kinds = list(KINDS)[: min(rows.num_members, len(KINDS))]
    found = wrong_ids(rows)
    unlikely = _mean_likelihood(rows)
    sections = []
    for kind in kinds:
        places = _groups_in_turn(rows, sorted(map(rows.ids.index, found[kind]), key=lambda i: (unlikely[i], i)))
        views = [_view(rows, place, kind, picture_of) for place in places[:SHOWN]]
        sections.append(PageSection(KINDS[kind], _text(len(places), len(rows.ids)), views=views))
    return sections


def _text(number: int, total: int) -> str:
    if not number:
        return f"None of {total} pictures."
    shown = f" {SHOWN} of them are shown. {ORDER}" if number > SHOWN else f" {ORDER}" if number > 1 else ""
    return f"{number} of {total} pictures.{shown}"


def _groups_in_turn(rows: Rows, places: Sequence[int]) -> list[int]:
    """The first of each group before the second of any: pictures of a group look alike."""
    seen: Counter[str] = Counter()
    turns = []
    for i in places:
        turns.append(seen[rows.groups[i]])
        seen[rows.groups[i]] += 1
    return [i for _, i in sorted(zip(turns, places, strict=True), key=lambda pair: pair[0])]


def _mean_likelihood(rows: Rows) -> NDArray[np.float64]:
    """``(N,)``: of the true label, the mean over members and the classes whose truth is known."""
    return np.asarray(np.nanmean(rows.likelihoods, axis=(0, 2)))


def _view(rows: Rows, place: int, kind: str, picture_of: Callable[[str], Picture]) -> View:
    name = rows.ids[place]
    title = f"{name}: is {_names(rows, rows.truth[place] == 1)}; {_said(rows, place, kind)}"
    try:
        return View(title, f"picture {name}", photo(picture_of(name)))
    except DataError as error:
        return View(title, GAP.format(str(error).splitlines()[0]))


def _said(rows: Rows, place: int, kind: str) -> str:
    """What the members answered, those of one answer together, and who stands alone."""
    one = rows.take(np.array([place]))
    right = right_answers(one)[:, 0]
    answers = [_names(rows, predicted_labels(each, rows.several)[0]) for each in one.probabilities]
    if kind == "one":
        (alone,) = np.flatnonzero(~right)
        return f"{rows.members[alone]} alone says {answers[alone]}"
    others = _counted(answer for answer, is_right in zip(answers, right, strict=True) if not is_right)
    if kind == "one_right":
        (alone,) = np.flatnonzero(right)
        return f"{rows.members[alone]} alone says so, against {others}"
    return f"said {others}"


def _counted(answers: Iterable[str]) -> str:
    counts = Counter(answers).most_common()
    return "; ".join(f"{answer} × {number}" if number > 1 else answer for answer, number in counts)


def _names(rows: Rows, shown: NDArray[Any]) -> str:
    return ", ".join(name for name, value in zip(rows.classes, shown, strict=True) if value) or "none"
