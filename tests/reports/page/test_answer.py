import math
from dataclasses import replace

import pytest

from hsl.reports.page.answer import Standing, answer
from hsl.reports.statistics.comparisons import Comparison
from hsl.reports.statistics.paired_tests import Interval
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.statistics.verdicts import Trainings

CLEAR = Estimate(0.032, 40, Interval(0.032, 0.02, 0.044), Interval(0.032, 0.011, 0.053), 0.001, 0.003, 0.02, 22)
UNCLEAR = Estimate(0.014, 40, Interval(0.014, -0.001, 0.029), Interval(0.014, -0.005, 0.033), 0.06, 0.2, 0.03, 160)
FEW = Estimate(0.1, 2)
SCORES = {"a": Estimate(0.612, 40, Interval(0.612, 0.55, 0.671)), "b": Estimate(0.58, 40), "c": Estimate(0.5, 40)}


def pair(first, second, score=CLEAR, trainings=None, **further):
    return Comparison(first, second, score=score, trainings=trainings or Trainings(1, 0.03), **further)


def told(models, pairs, **further):
    found = answer(Standing("coral", "miou", models, SCORES, pairs, **further))
    assert 2 <= len(found) <= 4
    assert all(sentence.endswith(".") for sentence in found)
    return found


def test_one_best_of_three_with_its_interval_groups_and_training():
    likely = Trainings(5, 0.03, 0.012)
    pairs = [pair("a", "b", trainings=likely), pair("a", "c", replace(CLEAR, mean=0.11), likely)]
    pairs.append(pair("b", "c", UNCLEAR))
    first, second = told([*"abc"], pairs)
    assert first == (
        "a is the best of 3 models on these pictures of coral: pooled mIoU 61.2 % [55.0, 67.1], 3.2 points [1.1, 5.3] "
        "better than b, the closest, over 40 groups."
    )
    assert second == "A new training would likely show it too (p = 0.012)."


@pytest.mark.parametrize(
    ("trainings", "said"),
    [
        (
            Trainings(3, 0.03, 0.21, needed=9),
            "Another training may undo this (p = 0.21): about 9 folds would settle a difference of this size (3 here).",
        ),
        (
            Trainings(4, 0.03, 0.32, by_fold=False),
            "Another training may undo this (p = 0.32): not even 100 trainings, over seeds, would likely show a "
            "difference of this size.",
        ),
        (
            Trainings(1, 0.03),
            "Nothing is known of the spread of training: 3 trainings of each, over folds or seeds, are the least that "
            "can tell.",
        ),
        (Trainings(2, 0.03), "2 trainings each say too little of the spread of training (at least 3)."),
        (
            Trainings(3, -0.03, 0.03),
            "Another training may undo this: over trainings the other is ahead (p = 0.03).",
        ),
    ],
)
def test_another_training(trainings, said):
    found = told(["a", "b"], [pair("a", "b", trainings=trainings)])
    assert found[0].startswith("a is better than b on these pictures of coral: pooled mIoU 61.2 % [55.0, 67.1], 3.2")
    assert found[1] == said


def test_of_those_that_it_is_better_than_the_one_with_the_least_sure_training_is_told():
    sure, unsure = Trainings(3, 0.03, 0.01), Trainings(3, 0.11, 0.35, needed=16)
    far = replace(CLEAR, mean=0.11)
    pairs = [pair("a", "b", trainings=sure), pair("a", "c", far, unsure), pair("b", "c")]
    first, second = told([*"abc"], pairs)
    assert "3.2 points [1.1, 5.3] better than b, the closest" in first
    assert second == (
        "Against c another training may undo this (p = 0.35): about 16 folds would settle a difference of this size (3 "
        "here)."
    )


def test_what_cannot_be_told_apart_and_how_many_groups_would_settle_it():
    pairs = [pair("a", "b", UNCLEAR), pair("a", "c"), pair("b", "c")]
    first, second, third = told([*"abc"], pairs)
    assert first == (
        "a and b cannot be told apart as the best on these pictures of coral: pooled mIoU 61.2 % [55.0, 67.1] for a, "
        "1.4 points [-0.5, 3.3] ahead of b over 40 groups."
    )
    assert second == "c is worse than at least one of them."
    assert (
        third
        == "About 160 groups would settle a difference of this size; 40 groups show differences from 3.0 points on."
    )


def test_the_lower_ranked_one_may_be_the_better():
    turned = replace(CLEAR, mean=-0.032, adjusted=Interval(-0.032, -0.053, -0.011))
    first = told(["b", "a"], [pair("b", "a", turned)])[0]
    assert first.startswith("a is better than b")
    assert "3.2 points [1.1, 5.3] better, over 40 groups" in first


def test_where_lower_is_better_the_interval_is_turned_and_ahead_is_lower():
    lower = replace(CLEAR, mean=-0.032, adjusted=Interval(-0.032, -0.053, -0.011))
    scores = {"a": Estimate(0.1, 40), "b": Estimate(0.132, 40)}
    found = answer(Standing("coral", "ece", ["a", "b"], scores, [pair("a", "b", lower, metric="ece")]))
    assert found[0].startswith(
        "a is better than b on these pictures of coral: pooled ECE 10.0 %, 3.2 points [1.1, 5.3]"
    )


def test_too_few_groups_say_nothing():
    found = told([*"abc"], [pair("a", "b", FEW), pair("a", "c", FEW), pair("b", "c", FEW)])
    assert (
        found[0]
        == "Nothing can be said between the 3 models on coral: too few independent groups to say (2; at least 6)."
    )
    assert "which is no verdict" in found[1]
    assert "At least 6 independent groups (2 here)" in found[2]


def test_nothing_or_one_or_nothing_comparable():
    assert told([], [])[0] == "No model has finished runs on coral."
    assert told(["a"], [])[0].startswith("a is the only model with pixel scores on coral: pooled mIoU 61.2 %")
    found = told(["a", "b"], [Comparison("a", "b", "they have unlike class lists")])
    assert found[0] == "The 2 models cannot be compared on coral: they have unlike class lists."


def test_models_that_are_equal_everywhere_or_differ_by_a_constant():
    first, second = told(["a", "b"], [pair("a", "b", Estimate(0.0, 40))])
    assert first.startswith("a and b cannot be told apart on these pictures")
    assert second == "They are alike in every one of the 40 groups: more of the same would not tell them apart."
    second = told(["a", "b"], [pair("a", "b", Estimate(0.1, 40))])[1]
    assert second == "No difference shown: every group moves the score alike, which hides the spread."


def test_a_mean_over_pictures_that_says_the_reverse_is_what_is_told():
    reverse = {"mean over pictures": replace(CLEAR, mean=-0.03, interval=Interval(-0.03, -0.04, -0.02))}
    second = told(["a", "b"], [pair("a", "b", beside=reverse)])[1]
    assert second == "No difference shown: the mean over pictures says the reverse."


def test_models_that_were_never_compared_are_not_said_to_be_alike():
    reason = "they have unlike fold assignments of the same data"
    apart = [pair("a", "b", None, refused=reason), pair("a", "c", None, refused=reason), pair("b", "c")]
    found = told([*"abc"], apart, warnings=["x"])
    assert found[0].startswith("b is better than c on these pictures of coral: pooled mIoU 58.0 %, 3.2 points")
    assert found[1] == f"a is compared with none: {reason}."
    halves = [pair("a", "b", None, refused=reason), pair("a", "c"), pair("b", "c")]
    assert told([*"abc"], halves) == [
        f"a and b are beaten by none on these pictures of coral, but not compared with each other: {reason}.",
        "c is worse than at least one of them.",
    ]


def test_of_many_groups_in_all_few_may_be_those_of_the_best():
    pairs = [pair("a", "b", replace(FEW, num_units=4)), pair("a", "c", replace(FEW, num_units=4)), pair("b", "c")]
    assert told([*"abc"], pairs)[2] == "At least 6 groups that both were scored on would be a beginning (4 here)."


def test_where_few_groups_make_up_the_score_no_difference_could_be_shown():
    found = told(["a", "b"], [pair("a", "b", replace(UNCLEAR, smallest=math.nan, needed=None))])
    assert found[1] == "40 groups of which few make up most of the score could show no difference of any size."


def test_without_counts_nothing_is_told_of_the_score():
    found = answer(Standing("coral", "miou", ["a", "b"], {}, [pair("a", "b", None)]))
    assert found[0].endswith("on coral: without pixel counts there is no pooled score.")
    assert found[1] == "a comes first, which is no verdict."


def test_too_few_resamples_settle_nothing():
    found = told(["a", "b"], [pair("a", "b", replace(UNCLEAR, adjusted=None, smallest=math.nan, needed=None))])
    assert found[1] == "The bootstrap drew too few resamples to settle anything over 40 groups."


def test_without_groups_the_pictures_are_counted():
    found = told(["a", "b"], [pair("a", "b", UNCLEAR)], unit="pictures")
    assert found[0].endswith("over 40 pictures.")
    assert found[1].startswith("About 160 pictures would settle")


def test_an_end_that_would_read_0_has_one_digit_more():
    close = replace(UNCLEAR, adjusted=Interval(0.014, -0.0002, 0.033))
    assert "1.4 points [-0.02, 3.3] ahead" in told(["a", "b"], [pair("a", "b", close)])[0]


def test_a_difference_that_no_number_of_groups_would_show():
    found = told(["a", "b"], [pair("a", "b", replace(UNCLEAR, needed=None))])
    assert "no number that can be had" in found[1]
    assert math.isnan(Estimate(0.0, 3).smallest)


def test_warnings_come_last_and_many_models_are_counted():
    few = [pair("a", other, FEW) for other in "bcdefg"]
    found = told([*"abcdefg"], few, warnings=["the models have unlike first weights", "1 of 9 runs is unfinished"])
    assert found[-1] == "Read this with care: the models have unlike first weights; 1 of 9 runs is unfinished."
    labels = [*"abcdefg"]
    pairs = [pair(x, y, UNCLEAR) for i, x in enumerate(labels) for y in labels[i + 1 :]]
    assert told(labels, pairs, warnings=["x"])[0].startswith("a, b, c and 4 others cannot be told apart")
