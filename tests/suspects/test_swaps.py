"""Swapped masks are found by small versions, as comparing all pairs at full size finds them."""

from itertools import combinations

import numpy as np
from tests.suspects._inputs import blobs, seen

from hsl.suspects.scores import Evidence
from hsl.suspects.swaps import SmallVersions, best_pairs, compare


def pictures(swapped: dict[int, int], number: int = 30) -> dict[str, Evidence]:
    truths = [blobs(seed, number=0 if seed == 7 else 4) for seed in range(number)]
    return {f"p{i:02}": seen(truth, truths[swapped.get(i, i)]) for i, truth in enumerate(truths)}


def found(evidence: dict[str, Evidence]) -> list[tuple[str, str]]:
    small = SmallVersions()
    for name, one in evidence.items():
        small.add(name, one)
    judged = [compare(a, b, evidence[a], evidence[b]) for a, b in small.candidates()]
    return [(one.first, one.second) for one in best_pairs([one for one in judged if one])]


def test_pairs_are_found_an_empty_mask_among_them_and_nothing_else() -> None:
    assert found(pictures({})) == []
    evidence = pictures({3: 12, 12: 3, 7: 20, 20: 7})
    assert sorted(found(evidence)) == [("p03", "p12"), ("p07", "p20")]
    every = [compare(a, b, evidence[a], evidence[b]) for a, b in combinations(evidence, 2)]
    assert {(one.first, one.second) for one in every if one} == {("p03", "p12"), ("p07", "p20")}


def test_pictures_of_unlike_sizes_are_never_a_pair_and_each_is_in_one_pair_at_most() -> None:
    small = SmallVersions()
    truths = blobs(1), blobs(2, (80, 96))
    for name, truth in zip("ab", truths, strict=True):
        small.add(name, seen(truth, np.zeros_like(truth)))
    assert small.candidates() == []
    truth, other = blobs(1), blobs(2)
    evidence = {"a": seen(truth, other), "b": seen(other, truth), "c": seen(other, truth)}
    assert len(found(evidence)) == 1
