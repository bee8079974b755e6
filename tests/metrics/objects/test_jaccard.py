import json
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.ndimage import label

from hsl.data.labels.object_labels import distance_map
from hsl.metrics.objects.failures import object_failures
from hsl.metrics.objects.jaccard import COUNTS, object_counts, pool_objects
from hsl.metrics.objects.panoptic import panoptic_counts, pool_panoptic
from hsl.metrics.objects.watershed import split_objects

Pixels = set[tuple[int, ...]]
NUM_CLASSES = 4
quick = settings(max_examples=100, deadline=None)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two instance maps that agree in most places, and ignored pixels."""
    coarse = draw(arrays(np.int64, (4, 4), elements=st.sampled_from([0, 1, 4, 255])))
    target = np.kron(coarse, np.ones((2, 3), np.int64))
    change = draw(arrays(np.int64, target.shape, elements=st.sampled_from([-1] * 5 + [0, 1, 9])))
    ignored = np.kron(draw(arrays(np.bool_, (4, 4), elements=st.booleans())), np.ones((2, 3), np.bool_))
    return np.where(change >= 0, change, target), target, ignored & draw(st.booleans())


def pixel_sets(ids: np.ndarray, left_out: np.ndarray) -> dict[int, Pixels]:
    found: dict[int, Pixels] = {}
    for place in np.ndindex(ids.shape):
        if ids[place] and not left_out[place]:
            found.setdefault(int(ids[place]), set()).add(place)
    return dict(sorted(found.items()))


def brute_force(prediction: np.ndarray, target: np.ndarray, ignored: np.ndarray) -> dict[str, int]:
    """Algorithm 1 of Kumar et al. and the matches at IoU > 1/2, by sets of pixels."""
    nothing = np.zeros_like(ignored)
    hidden = {name: len(pixels) for name, pixels in pixel_sets(prediction, ~ignored).items()}
    predicted, wanted = pixel_sets(prediction, ignored), pixel_sets(target, ignored)
    whole = {name: len(pixels) for name, pixels in pixel_sets(prediction, nothing).items()}
    counts = dict.fromkeys(COUNTS, 0)
    used, matched = set(), set()
    for pixels in wanted.values():
        best, name = Fraction(0), None
        for other, others in predicted.items():
            iou = Fraction(len(pixels & others), len(pixels | others))
            if iou > best:
                best, name = iou, other
        if name is None:
            counts["aji_union"] += len(pixels)
        else:
            counts["aji_intersection"] += len(pixels & predicted[name])
            counts["aji_union"] += len(pixels | predicted[name])
            used.add(name)
        if best > Fraction(1, 2):
            matched.add(name)
            counts["tp"] += 1
        else:
            counts["fn"] += 1
    for name, pixels in predicted.items():
        excused = 2 * hidden.get(name, 0) > whole[name]
        counts["aji_union"] += len(pixels) if name not in used and not excused else 0
        counts["fp"] += name not in matched and not excused
    return counts


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_equal_to_brute_force(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    assert object_counts(*images) == brute_force(*images)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_f1_is_the_recognition_quality(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    prediction, target, _ = images
    f1 = pool_objects([object_counts(prediction, target)])["f1"]
    maps = [(ids > 0).astype(np.uint8) for ids in (prediction, target)]
    counts = panoptic_counts(*maps, 2, target_instances=target, prediction_instances=prediction)
    assert f1 == pytest.approx(pool_panoptic([counts])["rq"][1], nan_ok=True)


def test_by_hand() -> None:
    # The target of 4 takes the prediction of 3 (IoU 3/4), that of 1 takes nothing, the prediction of 2 is spare.
    target = np.array([[1, 1, 1, 1, 0, 0, 2]])
    prediction = np.array([[5, 5, 5, 0, 6, 6, 0]])
    pooled = pool_objects([object_counts(prediction, target)])
    assert pooled["aji"] == 3 / (4 + 1 + 2)
    assert pooled["f1"] == 2 / (2 + 1 + 1)


def test_one_prediction_over_two_objects_is_taken_twice() -> None:
    counts = object_counts(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]))
    assert (counts["aji_intersection"], counts["aji_union"], counts["tp"]) == (4, 8, 0)


def test_perfect_and_renamed() -> None:
    target = np.array([[0, 3, 3, 255, 255, 0, 8]])
    pooled = pool_objects([object_counts(np.array([0, 1, 2, 3])[np.searchsorted([0, 3, 8, 255], target)], target)])
    assert (pooled["aji"], pooled["f1"]) == (1.0, 1.0)


def test_empty_pictures() -> None:
    nothing, something = np.zeros((2, 2), np.int64), np.ones((2, 2), np.int64)
    assert math.isnan(pool_objects([object_counts(nothing, nothing)])["aji"])
    assert math.isnan(pool_objects([object_counts(nothing, nothing)])["f1"])
    assert pool_objects([object_counts(something, nothing)])["aji"] == 0
    assert pool_objects([object_counts(nothing, something)])["aji"] == 0
    everything = np.ones((2, 2), np.bool_)
    assert not any(object_counts(something, something, everything).values())


def test_counts_pool_over_pictures_and_through_json() -> None:
    target, prediction = np.array([[1, 1, 0, 2]]), np.array([[1, 0, 0, 2]])
    rows = [object_counts(prediction, target), object_counts(target, target)]
    side_by_side = object_counts(
        np.hstack([prediction, target + (target > 0) * 9]), np.hstack([target, target + (target > 0) * 9])
    )
    assert pool_objects(json.loads(json.dumps(rows))) == pool_objects([side_by_side])


def test_bad_arguments() -> None:
    ids = np.ones((2, 2), np.int64)
    with pytest.raises(ValueError, match="of one size"):
        object_counts(ids, ids[:1])
    with pytest.raises(ValueError, match="integer labels"):
        object_counts(ids.astype(float), ids)
    with pytest.raises(ValueError, match="`ignored` should have the shape"):
        object_counts(ids, ids, ids[0] > 0)
    with pytest.raises(ValueError, match="at least one picture"):
        pool_objects([])


def discs(*centres: tuple[int, int], radius: int = 8, size: int = 48) -> np.ndarray:
    """Ids of the nearest centre, within the radius."""
    rows, columns = np.indices((size, size))
    distances = np.stack([np.hypot(rows - y, columns - x) for y, x in centres])
    return np.where(distances.min(0) <= radius, distances.argmin(0) + 1, 0)


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_two_discs_that_touch_are_split() -> None:
    truth = discs((20, 14), (20, 29))
    assert ndimage.label(truth > 0)[1] == 1  # they touch
    found = split_objects((truth > 0) * 0.9, distance_map(truth))
    assert found.dtype == np.int32
    assert same_objects(found, truth)


@pytest.mark.parametrize("scale", [1.0, 0.5])  # a network that never dares to say 1
def test_a_noisy_distance_map_still_gives_two(scale: float) -> None:
    truth = discs((20, 14), (20, 29))
    noisy = scale * distance_map(truth) + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    found = split_objects((truth > 0).astype(float), noisy)
    assert found.max() == 2
    assert ((found > 0) == (truth > 0)).all()


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_a_network_that_has_learned_no_distance_cuts_nothing(level: float) -> None:
    truth = discs((20, 14), (20, 29))
    flat = level + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    assert split_objects((truth > 0).astype(float), flat).max() == 1


def test_an_empty_mask_gives_none() -> None:
    assert not split_objects(np.zeros((5, 6)), np.ones((5, 6))).any()


def test_an_object_without_a_marker_is_kept() -> None:
    truth = discs((12, 12), (34, 34))
    distances = np.where(truth == 1, distance_map(truth), 0.1)
    found = split_objects((truth > 0).astype(float), distances)
    assert same_objects(found, truth)
    assert sorted(set(found.ravel().tolist())) == [0, 1, 2]


def test_markers_outside_the_mask_make_nothing() -> None:
    truth = discs((12, 12))
    distances = distance_map(truth)
    distances[40:] = 1
    assert same_objects(split_objects((truth > 0).astype(float), distances), truth)


def test_sizes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="of one size"):
        split_objects(np.zeros((2, 3)), np.zeros((3, 2)))


@st.composite
def failure_pairs(draw: st.DrawFn, ignore: bool = True) -> tuple[np.ndarray, np.ndarray]:
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
def test_failures_by_hand(name: str, target: list[str], prediction: list[str], lost: dict, surplus: dict) -> None:
    assert kinds(picture(*prediction), picture(*target)) == (lost, surplus), name


def objects(labels: np.ndarray) -> list[tuple[int, frozenset]]:
    found = []
    for index in range(1, NUM_CLASSES):
        ids, number = label(labels == index, np.ones((3, 3)))
        found += [(index, frozenset(zip(*np.nonzero(ids == i), strict=True))) for i in range(1, number + 1)]
    return found


def failures_by_brute_force(prediction: np.ndarray, target: np.ndarray) -> tuple[dict[str, int], dict[str, int]]:
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
@given(failure_pairs())
def test_equals_brute_force(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert kinds(*pair) == failures_by_brute_force(*pair)


@quick
@given(failure_pairs())
def test_kinds_add_up_to_the_errors_of_pq(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = object_failures(*pair, NUM_CLASSES)
    counts = panoptic_counts(*pair, NUM_CLASSES)
    assert np.sum(list(found["false_negatives"].values()), axis=0).tolist() == counts["fn"]
    assert np.sum(list(found["false_positives"].values()), axis=0).tolist() == counts["fp"]


@quick
@given(failure_pairs(ignore=False))
def test_exchanging_the_images_exchanges_the_kinds(pair: tuple[np.ndarray, np.ndarray]) -> None:
    mirror = {"swap": "swap", "merge": "split", "split": "merge", "missed": "spurious", "spurious": "missed"}
    there, back = kinds(*pair), kinds(*pair[::-1])
    assert {mirror[kind]: n for kind, n in there[0].items()} == back[1]
    assert {mirror[kind]: n for kind, n in there[1].items()} == back[0]


@quick
@given(failure_pairs(), st.integers(0, 2**32 - 1))
def test_ignored_pixels_change_nothing(pair: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    prediction, target = pair
    noise = np.random.default_rng(seed).integers(0, 300, target.shape)
    other = np.where(target == 255, noise, prediction)
    assert object_failures(other, target, NUM_CLASSES) == object_failures(prediction, target, NUM_CLASSES)


@quick
@given(failure_pairs())
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
