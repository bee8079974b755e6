from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from hsl.metrics.objects.failures import object_failures
from hsl.metrics.objects.panoptic import panoptic_counts

NUM_CLASSES = 4
quick = settings(max_examples=100, deadline=None)


@st.composite
def pairs(draw: st.DrawFn, ignore: bool = True) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    values = [0, 0, 1, 2, 3, 255] if ignore else [0, 0, 1, 2, 3]

    def patches(size: int) -> np.ndarray:
        coarse = draw(arrays(np.int64, (-(-14 // size),) * 2, elements=st.sampled_from(values)))
        return np.kron(coarse, np.ones((size, size), np.int64))[: shape[0], : shape[1]]

    target = patches(draw(st.integers(2, 4)))
    prediction = patches(draw(st.integers(2, 4)))
    return np.where(prediction == 255, np.where(target == 255, 0, target), prediction), target


def picture(*rows: str) -> np.ndarray:
    return np.array([[0 if c == "." else 255 if c == "#" else int(c) for c in row] for row in rows])


def kinds(prediction: np.ndarray, target: np.ndarray) -> tuple[dict[str, int], dict[str, int]]:
    found = object_failures(prediction, target, NUM_CLASSES)
    sides = found["false_negatives"], found["false_positives"]
    return tuple({kind: sum(n) for kind, n in side.items() if sum(n)} for side in sides)


@pytest.mark.parametrize(
    ("name", "target", "prediction", "lost", "surplus"),
    [
        ("perfect", ["11.11"], ["11.11"], {}, {}),
        ("missed", ["11.11"], ["11..."], {"missed": 1}, {}),
        ("spurious", ["11..."], ["11.11"], {}, {"spurious": 1}),
        ("swap", ["111.."], ["222.."], {"swap": 1}, {"swap": 1}),
        ("merge of equals", ["111.111"], ["1111111"], {"merge": 2}, {"merge": 1}),
        ("merge into a found one", ["1111.1"], ["111111"], {"merge": 1}, {}),
        ("split into equals", ["1111111"], ["111.111"], {"split": 1}, {"split": 2}),
        ("split off a found one", ["111111"], ["1111.1"], {}, {"split": 1}),
        ("too small a part", ["111111"], ["11...."], {"missed": 1}, {"spurious": 1}),
        ("two specks in a large one", ["11111111"], ["1....1.."], {"missed": 1}, {"spurious": 2}),
        ("two specks under a large one", ["1....1.."], ["11111111"], {"missed": 2}, {"spurious": 1}),
        ("beside", ["11..."], ["...11"], {"missed": 1}, {"spurious": 1}),
        ("part under another class", ["1111.."], ["1122.."], {"missed": 1}, {"spurious": 2}),
        ("merge of two classes is none", ["111222"], ["111111"], {"missed": 2}, {"spurious": 1}),
        ("ignored", ["11.##"], ["11.11"], {}, {}),
    ],
)
def test_by_hand(name: str, target: list[str], prediction: list[str], lost: dict, surplus: dict) -> None:
    assert kinds(picture(*prediction), picture(*target)) == (lost, surplus), name


def objects(labels: np.ndarray) -> list[tuple[int, frozenset]]:
    found = []
    for index in range(1, NUM_CLASSES):
        ids, number = label(labels == index, np.ones((3, 3)))
        found += [(index, frozenset(zip(*np.nonzero(ids == i), strict=True))) for i in range(1, number + 1)]
    return found


def brute_force(prediction: np.ndarray, target: np.ndarray) -> tuple[dict[str, int], dict[str, int]]:
    """The rules at the top of `failures.py` once more, with sets of pixels."""
    predicted = objects(np.where(target == 255, 255, prediction))
    wanted = objects(target)
    iou = lambda a, b: len(a & b) / len(a | b)  # noqa: E731
    found = {
        (p, t) for p in predicted for t in wanted if p[0] == t[0] and iou(p[1], t[1]) > 0.5
    }  # fmt: skip
    matched = [{p for p, _ in found}, {t for _, t in found}]

    def held(holder: tuple, others: list) -> list:
        inside = [o for o in others if o[0] == holder[0] and len(o[1] & holder[1]) > len(o[1]) / 2]
        filled = sum(len(o[1] & holder[1]) for o in inside)
        joined = len(inside) >= 2 and (any(holder in side for side in matched) or filled > len(holder[1]) / 2)
        return inside if joined else []

    def of_side(mine: list, others: list, done: list[set], holds: str, is_held: str, order: list[str]) -> dict:
        counts: Counter = Counter()
        for one in mine:
            if one in done[0]:
                continue
            swapped = [o for o in others if o not in done[1] and o[0] != one[0] and iou(one[1], o[1]) > 0.5]
            reasons = {"swap": bool(swapped), holds: bool(held(one, others))}
            reasons[is_held] = any(one in held(other, mine) for other in others)
            counts[next((kind for kind in order[:-1] if reasons[kind]), order[-1])] += 1
        return dict(counts)

    # Equal sets of pixels cannot be in prediction and target at once without matching or being swapped.
    return (
        of_side(wanted, predicted, matched[::-1], "split", "merge", ["swap", "merge", "split", "missed"]),
        of_side(predicted, wanted, matched, "merge", "split", ["swap", "split", "merge", "spurious"]),
    )


@quick
@given(pairs())
def test_equals_brute_force(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert kinds(*pair) == brute_force(*pair)


@quick
@given(pairs())
def test_kinds_add_up_to_the_errors_of_pq(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = object_failures(*pair, NUM_CLASSES)
    counts = panoptic_counts(*pair, NUM_CLASSES)
    assert np.sum(list(found["false_negatives"].values()), axis=0).tolist() == counts["fn"]
    assert np.sum(list(found["false_positives"].values()), axis=0).tolist() == counts["fp"]


@quick
@given(pairs(ignore=False))
def test_exchanging_the_images_exchanges_the_kinds(pair: tuple[np.ndarray, np.ndarray]) -> None:
    mirror = {"swap": "swap", "merge": "split", "split": "merge", "missed": "spurious", "spurious": "missed"}
    there, back = kinds(*pair), kinds(*pair[::-1])
    assert {mirror[kind]: n for kind, n in there[0].items()} == back[1]
    assert {mirror[kind]: n for kind, n in there[1].items()} == back[0]


@quick
@given(pairs(), st.integers(0, 2**32 - 1))
def test_ignored_pixels_change_nothing(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    prediction, target = pair
    noise = np.random.default_rng(seed).integers(0, 300, target.shape)
    other = np.where(target == 255, noise, prediction)
    assert object_failures(other, target, NUM_CLASSES) == object_failures(prediction, target, NUM_CLASSES)


@quick
@given(pairs())
def test_identical_masks_have_no_failure(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert kinds(np.where(pair[1] == 255, 0, pair[1]), pair[1]) == ({}, {})


def test_locates_the_largest_of_each_kind() -> None:
    target = picture("1....", "....2", "11..2", "11..2")
    prediction = picture(".....", "....2", "....2", "....2")
    found = object_failures(prediction, target, NUM_CLASSES, num_boxes=1)["objects"]
    assert found == [{"kind": "missed", "side": "target", "class": 1, "area": 4, "box": [2, 0, 4, 2]}]
    assert len(object_failures(prediction, target, NUM_CLASSES)["objects"]) == 2
    assert object_failures(prediction, target, NUM_CLASSES, num_boxes=0)["objects"] == []


def test_a_given_segment_that_lies_mostly_on_ignored_pixels_is_no_failure() -> None:
    target, prediction = picture("..###."), picture(".1111.")
    ids = (prediction > 0).astype(int)
    dropped = object_failures(prediction, target, NUM_CLASSES, prediction_instances=ids)
    assert sum(sum(n) for n in dropped["false_positives"].values()) == 0
    assert kinds(prediction, target) == ({}, {"spurious": 1})


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 7), (5, 3)])
def test_edges(shape: tuple[int, int]) -> None:
    ones, zeros = np.ones(shape, int), np.zeros(shape, int)
    number = {} if not ones.size else {"missed": 1}
    assert kinds(zeros, ones) == (number, {})
    assert kinds(ones, np.full(shape, 255)) == ({}, {})
    assert kinds(ones, ones) == ({}, {})
