"""Fits on features and pixels: fused features, dense rows, and the loss of the heads that are ours."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from tests.ensembles._inputs import relabelled, rows_of

from hsl.ensembles import dense
from hsl.ensembles.dense import (
    ImageMaps,
    affordable_pixels,
    combine_maps,
    fit_parts,
    pixel_rows,
    stratified_pixels,
)
from hsl.ensembles.fusion import attention_head, fusion, principal_components, tensor_sketch
from hsl.ensembles.isolation import check_sides, judged
from hsl.ensembles.learners import cross_entropy
from hsl.ensembles.nested import Combined, Fit, meta_folds, run_nested, score_of
from hsl.ensembles.rows import Rows
from hsl.ensembles.segmentation_vote import segmentation_vote
from hsl.ensembles.stacking import stacking
from hsl.ensembles.votes import votes
from hsl.inference.combining import combined_maps, sigmoid, softmax
from hsl.metrics.pixels.formulas import confusion_scores

FUSION = fusion()


@pytest.mark.parametrize("num", [30, 60])  # fewer and more rows than columns
def test_concatenation_is_logistic_regression_on_all_standardised_columns(num: int) -> None:
    rows = rows_of([1, 0.5, 0], num=num)
    columns = np.concatenate([rows.features[name] for name in rows.members], axis=1).astype(float)
    columns = StandardScaler().fit_transform(columns) / np.sqrt(columns.shape[1])
    expected = LogisticRegression(C=5.0, max_iter=1000, tol=1e-8).fit(columns, rows.labels).predict_proba(columns)
    np.testing.assert_allclose(fusion(5.0)["fusion/concatenation"](rows)(rows), expected, atol=4e-3)


@pytest.mark.parametrize("several", [False, True])
def test_attention_of_one_member_is_logistic_regression(several: bool) -> None:
    rows = rows_of([0.4], num=80, several=several)
    columns = principal_components(rows.features["m00"].astype(float))(rows.features["m00"].astype(float))
    head, attention = attention_head([columns], rows.truth, several, 3.0)
    if several:
        fitted = [LogisticRegression(C=3.0, tol=1e-8).fit(columns, labels) for labels in rows.truth.T]
        expected = np.column_stack([each.predict_proba(columns)[:, 1] for each in fitted])
    else:
        expected = LogisticRegression(C=3.0, tol=1e-8).fit(columns, rows.labels).predict_proba(columns)
    np.testing.assert_allclose(head([columns]), expected, atol=4e-3)
    np.testing.assert_array_equal(attention([columns]), np.ones((80, 1)))


def test_attention_is_that_of_automatic_differentiation() -> None:
    rows = rows_of([1, 0.3], num=60)
    columns = [values.astype(float) / 3 for values in rows.features.values()]
    tensors, labels = [torch.tensor(values) for values in columns], torch.tensor(rows.labels)

    def parts(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        v, b, w, c = theta.split([24, 2, 72, 3])
        v, w = v.view(2, 12), w.view(2, 12, 3)
        shares = torch.stack([x @ v[i] for i, x in enumerate(tensors)], 1).add(b).softmax(1)
        return shares, c + sum(2 * shares[:, [i]] * (x @ w[i]) for i, x in enumerate(tensors))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(values, requires_grad=True)
        penalty = (theta[:24].square().sum() + theta[26:98].square().sum()) / 2
        total = torch.nn.functional.cross_entropy(parts(theta)[1], labels, reduction="sum") + penalty
        (gradient,) = torch.autograd.grad(total, theta)
        return total.item(), gradient.numpy()

    theta = torch.tensor(minimize(loss, np.zeros(101), jac=True, method="L-BFGS-B").x)
    head, attention = attention_head(columns, rows.truth, False)
    np.testing.assert_allclose(head(columns), parts(theta)[1].softmax(1), atol=5e-3)
    np.testing.assert_allclose(attention(columns), parts(theta)[0], atol=1e-2)
    assert attention(columns)[:, 0].mean() > 0.55  # the better member


def test_a_sketch_stands_for_the_products_of_all_pairs_of_features() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(8, 5)), generator.normal(size=(8, 7))
    sketch = tensor_sketch(one, other, 4096, seed=0)
    np.testing.assert_allclose(np.linalg.norm(sketch, axis=1), 1)
    products = np.sign(sketch) * sketch**2
    expected = (one @ one.T + 1) * (other @ other.T + 1)
    found = products @ products.T
    np.testing.assert_allclose(cosines(found), cosines(expected), atol=0.1)


def cosines(inner: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.diag(inner))
    return inner / length / length[:, None]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", FUSION)
def test_fused_features_say_more_than_each(name: str, several: bool) -> None:
    skill = 1.5 if several else 0.5
    rows = rows_of([skill, skill, 0], num=240, several=several, seed=2)
    parts = meta_folds(rows, 3)
    both = score_of(run_nested(name, FUSION[name], rows, parts).nested, rows)
    alone = score_of(run_nested(name, FUSION[name], rows.of_members(["m00"]), parts).nested, rows)
    noise = score_of(run_nested(name, FUSION[name], rows.of_members(["m02"]), parts).nested, rows)
    assert both > alone > noise + 0.05


def test_members_without_features_take_no_part_and_none_is_refused() -> None:
    rows = rows_of([1, 0.5], num=60)
    some = replace(rows, features={"m01": rows.features["m01"]})
    for name, fit in FUSION.items():
        combined = fit(some)
        assert combined.members == ("m01",)
        np.testing.assert_array_equal(combined(some), fit(rows.of_members(["m01"]))(rows), err_msg=name)
        with pytest.raises(ValueError, match="members whose pooled features were kept"):
            fit(replace(rows, features={}))
        with pytest.raises(ValueError, match="pooled features of m01, which the fusion was fitted on"):
            combined(replace(rows, features={}))


def test_unknown_labels_are_in_no_fit() -> None:
    rows = rows_of([1, 0.5], num=60)
    known = np.arange(60) % 3 > 0
    for name, fit in FUSION.items():
        some = relabelled(rows, np.where(known, rows.labels, -1))
        np.testing.assert_array_equal(fit(some)(rows), fit(rows.take(known))(rows), err_msg=name)


def test_a_feature_that_never_changes_is_no_division_by_zero() -> None:
    rows = rows_of([1, 0.5], num=30)
    constant = {**rows.features, "m00": np.ones((30, 4), np.float32)}
    alone = Rows(**{**vars_of(rows), "features": constant})
    for name, fit in FUSION.items():
        assert np.isfinite(fit(alone)(alone)).all(), name
        assert np.isfinite(fit(alone.of_members(["m00"]))(alone)).all(), name


def vars_of(rows: Rows) -> dict:
    return {name: getattr(rows, name) for name in Rows.__dataclass_fields__}


# Pixels are sampled, fitted on without their image's part, and counted over whole maps.


CLASSES, MEMBERS = ("ground", "crack", "hole"), ("a", "b", "c")
FITS: dict[str, Fit] = {
    **votes(), **segmentation_vote(), "stacking/logistic": stacking()["stacking/logistic"],
}  # fmt: skip


def image(number: int, skills: tuple[float, ...] = (2, 1, -1), size: int = 24) -> ImageMaps:
    generator = np.random.default_rng(number)
    mask = np.zeros((size, size), np.uint8)
    mask[4 : 8 + number, 4:14], mask[14:20, 15:20], mask[:2] = 1, 2, 255
    truth = np.moveaxis(np.eye(3)[np.where(mask == 255, 0, mask)], 2, 0)
    logits = np.stack([skill * 2 * truth + generator.normal(size=truth.shape) for skill in skills])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    foreground = np.clip(np.array(skills) / 3, 0, 1)
    maps = np.round(255 * p).astype(np.uint8)
    return ImageMaps(f"i{number}", f"g{number // 2}", f"c{number}", number % 3, mask, maps, foreground)


def images(num: int = 8) -> Iterator[ImageMaps]:
    return (image(number) for number in range(num))


def test_pixels_are_sampled_by_their_class_and_the_id_of_their_image() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[:10], mask[50, :50], mask[60, 0] = 255, 1, 2
    index = stratified_pixels(mask, "x", 500)
    labels = mask.ravel()[index]
    assert len(index) <= 500
    assert np.bincount(labels).tolist() == [497, 2, 1]
    assert sorted(set(index.tolist())) == index.tolist()
    np.testing.assert_array_equal(index, stratified_pixels(mask, "x", 500))
    assert (stratified_pixels(mask, "y", 500) != index).any()
    assert len(stratified_pixels(mask, "x", 10**6)) == 9000
    assert len(stratified_pixels(np.full((4, 4), 255, np.uint8), "x", 9)) == 0
    assert [affordable_pixels(num) for num in (1, 100, 1000, 10**6)] == [2000, 2000, 200, 1]


def test_rows_of_pixels_are_those_of_the_maps() -> None:
    rows = pixel_rows(images(3), MEMBERS, CLASSES, 60)
    assert {name.rpartition("@")[0] for name in rows.ids} == {"i0", "i1", "i2"}
    row = len(rows.ids) // 2
    owner, _, index = rows.ids[row].rpartition("@")
    source = image(int(owner[1:]))
    assert rows.labels[row] == source.mask.ravel()[int(index)]
    values = source.maps.reshape(3, 3, -1)[:, :, int(index)] / 255
    np.testing.assert_allclose(rows.probabilities[:, row], values / values.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(rows.foreground[:, row], source.foreground)
    assert (rows.groups[row], rows.contents[row], rows.folds[row]) == (source.group, source.content, source.fold)


def confusion(probabilities: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``(C, C)``, rows the truth, of the most probable class of each labelled pixel."""
    known = mask != 255
    cells = mask[known].astype(np.int64) * len(CLASSES) + probabilities.argmax(axis=0)[known]
    return np.bincount(cells, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1)


def counted_maps(combined: Combined, source: ImageMaps) -> np.ndarray:
    return confusion(combine_maps(combined, source.maps, MEMBERS, CLASSES), source.mask)


def miou_of(matrices: np.ndarray) -> float:
    return float(confusion_scores(matrices.sum(axis=0))["miou"])


@pytest.mark.parametrize("name", FITS)
def test_counts_are_those_of_each_image_by_the_fit_without_its_part(name: str) -> None:
    rows = pixel_rows(images(), MEMBERS, CLASSES, 200)
    parts = meta_folds(rows, 2)
    result = fit_parts(FITS[name], rows, parts)
    nested = np.stack([counted_maps(result.of(each.id), each) for each in images()])
    fitted = np.stack([counted_maps(result.final, each) for each in images()])
    pixels = run_nested(name, FITS[name], rows, parts)
    assert result.choices == pixels.choices
    assert sorted(result.part_of) == [f"i{number}" for number in range(8)]
    judged(
        check_sides(
            name, result.trails, {f"i{i}": f"g{i // 2}" for i in range(8)}, {f"i{i}": f"i{i}" for i in range(8)}
        )
    )
    part = dict(zip(rows.groups, parts.tolist(), strict=True))["g1"]
    source = image(3)
    by_hand = combine_maps(FITS[name](rows.take(parts != part)), source.maps, MEMBERS, CLASSES)
    counted = np.zeros((3, 3), np.int64)
    for truth, predicted in zip(source.mask.ravel(), by_hand.reshape(3, -1).argmax(axis=0), strict=True):
        if truth != 255:
            counted[truth, predicted] += 1
    np.testing.assert_array_equal(nested[3], counted)
    assert nested.sum() == 8 * 22 * 24
    assert abs(miou_of(fitted) - miou_of(nested)) < 0.05
    single = np.stack([confusion(each.maps[1], each.mask) for each in images()])
    assert miou_of(nested) > miou_of(single) or name in ("votes/soft", "votes/hard", "votes/logit")
    formula = result.final.formula
    assert formula is not None
    members = [MEMBERS.index(member) for member in result.final.members]
    exported = combined_maps(formula, source.maps[members])
    np.testing.assert_allclose(exported, combine_maps(result.final, source.maps, MEMBERS, CLASSES), atol=1e-7)


def test_maps_are_combined_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pixel_rows(images(4), MEMBERS, CLASSES, 100)
    combined = FITS["stacking/logistic"](rows)
    whole = combine_maps(combined, image(9).maps, MEMBERS, CLASSES)
    monkeypatch.setattr(dense, "CHUNK", 100)
    np.testing.assert_allclose(combine_maps(combined, image(9).maps, MEMBERS, CLASSES), whole, rtol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=0), 1, rtol=1e-6)
    soft = combine_maps(votes()["votes/soft"](rows), image(9).maps, MEMBERS, CLASSES)
    np.testing.assert_allclose(soft, image(9).maps.mean(axis=0) / 255, atol=1 / 100)


def test_an_image_without_labels_counts_nothing_and_what_does_not_fit_is_refused() -> None:
    empty = replace(image(8), mask=np.full((24, 24), 255, np.uint8))
    rows = pixel_rows([*images(4), empty], MEMBERS, CLASSES, 50)
    result = fit_parts(FITS["votes/soft"], rows, meta_folds(rows, 2))
    assert empty.id not in result.part_of
    assert counted_maps(result.of(empty.id), empty).sum() == 0
    with pytest.raises(ValueError, match="At least one pixel should have a label"):
        pixel_rows([empty], MEMBERS, CLASSES)
    with pytest.raises(ValueError, match="Maps of i8 should be uint8"):
        pixel_rows([empty], MEMBERS[:2], CLASSES)
    with pytest.raises(ValueError, match=r"`members` should be sorted, as in the maps. Found b, a, c"):
        pixel_rows([image(1)], ("b", "a", "c"), CLASSES)
    with pytest.raises(ValueError, match=r"below 3. Found 7"):
        pixel_rows([replace(image(1), mask=np.full((24, 24), 7, np.uint8))], MEMBERS, CLASSES)


# The loss of the heads that are ours; the classifiers themselves are tested by the stages.


def test_cross_entropy_has_the_gradient_of_finite_differences() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 3))
    for several in (False, True):
        truth = generator.integers(0, 2, (6, 3)).astype(float) if several else np.eye(3)[[0, 1, 2, 0, 1, 2]]
        truth[0] = np.nan
        value, gradient = cross_entropy(logits, truth, several)
        numeric = np.zeros_like(logits)
        for index in np.ndindex(*logits.shape):
            step = np.zeros_like(logits)
            step[index] = 1e-6
            ends = [cross_entropy(logits + sign * step, truth, several)[0] for sign in (1, -1)]
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, atol=1e-6)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    value, _ = cross_entropy(logits, np.eye(3)[[0, 1, 2, 0, 1, 2]], False)
    assert value == pytest.approx(6 * log_loss([0, 1, 2, 0, 1, 2], probabilities))


def test_great_logits_overflow_nowhere() -> None:
    np.testing.assert_array_equal(softmax(np.array([[1e5, 0.0]])), [[1, 0]])
    np.testing.assert_array_equal(sigmoid(np.array([-1e5, 0, 1e5])), [0, 0.5, 1])
    assert cross_entropy(np.array([[0.0, 900.0]]), np.array([[1.0, 0.0]]), False)[0] > 700
