import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import opening
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from hsl.errors import ConfigError
from hsl.losses.eight_part import embedding_parts as eight_part_embeddings
from hsl.losses.eight_part import pixel_parts as eight_part_pixels
from hsl.losses.eight_part import pixel_parts as maps
from hsl.losses.eight_part.loss import PARTS, EightPartLoss
from hsl.losses.eight_part.weak_labels import Pixels, opened, read_pixels, resize_labels, weak_targets

WEIGHTS = dict(zip(PARTS, (2.0, 10.0, 1.0, 0.5, 0.5, 0.1, 0.1, 0.1), strict=True))
COUNTS = {"segmentation": torch.tensor([900, 100])}
FUNCTIONS = {
    part: eight_part_embeddings if part in ("object_embedding", "pixel_contrastive") else eight_part_pixels
    for part in PARTS
}
B, H, W = 2, 16, 12
SHAPE = (2, 5, 6)
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
both = pytest.mark.parametrize(("seed", "weak"), list(itertools.product(range(3), (False, True))))
RULES = {"t_pos": 0.8, "t_neg": 0.1, "pseudo_weight": 0.3, "rest_weight": 0.05}


def make_loss(**changes: Any) -> EightPartLoss:
    return EightPartLoss(**({"weights": WEIGHTS, "class_counts": COUNTS} | changes))


def only(*parts: str) -> dict[str, float]:
    return {part: WEIGHTS[part] * (part in parts) for part in PARTS}


def make_outputs(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {
        "segmentation": 3 * torch.randn(B, 1, H, W, generator=generator),
        "hv": torch.rand(B, 1, H, W, generator=generator),
        "reconstruction": torch.rand(B, 3, H, W, generator=generator),
        "object_embedding": F.normalize(torch.randn(B, 8, H // 4, W // 4, generator=generator), dim=1),
        "pixel_embedding": F.normalize(torch.randn(B, 4, H // 2, W // 2, generator=generator), dim=1),
    }
    return {name: output.to(dtype).requires_grad_() for name, output in made.items()}


def make_batch(mask: torch.Tensor | None = None, weak: bool = True) -> Any:
    generator = torch.Generator().manual_seed(1)
    if mask is None:
        mask = F.interpolate(torch.rand(B, 1, 4, 3, generator=generator), (H, W))[:, 0].gt(0.5).long()
        mask[:, 0] = 255
    batch = {
        "masks": {"segmentation": mask},
        "targets": {
            "hv": torch.rand(B, H, W, generator=generator),
            "reconstruction": torch.rand(B, 3, H, W, generator=generator),
        },
    }
    return batch | ({"unlabelled": {"segmentation": mask == 0}} if weak else {})


@pytest.mark.parametrize("weak", [True, False])
def test_objectives_are_the_unweighted_parts(weak: bool) -> None:
    outputs, batch = make_outputs(), make_batch(weak=weak)
    torch.manual_seed(0)
    found = make_loss()(outputs, batch)
    mask = batch["masks"]["segmentation"]
    pixels = read_pixels(outputs["segmentation"], mask, mask == 0 if weak else None)
    p = pixels.probabilities.detach()
    torch.manual_seed(0)
    negative = resize_labels((p < 0.1) & (mask == 0), (8, 6))
    contrast = eight_part_embeddings.pixel_contrastive(
        outputs["pixel_embedding"], resize_labels(mask == 1, (8, 6)), negative
    )
    wanted = {
        "edge": eight_part_pixels.edge(pixels),
        "hv": F.mse_loss(outputs["hv"][:, 0][mask == 1], batch["targets"]["hv"][mask == 1]),
        "reconstruction": F.mse_loss(
            outputs["reconstruction"][..., 1:, :], batch["targets"]["reconstruction"][..., 1:, :]
        ),
        "object_embedding": eight_part_embeddings.object_embedding(
            outputs["object_embedding"], resize_labels(mask == 1, (4, 3))
        ),
        "pixel_contrastive": contrast,
        "total_variation": eight_part_pixels.total_variation(pixels),
        "small_hole": eight_part_pixels.small_hole(pixels),
    }
    assert tuple(found) == PARTS
    assert all(value > 0 for value in found.values())
    for part, value in wanted.items():
        torch.testing.assert_close(found[part], value)


def test_arguments_reach_the_parts() -> None:
    outputs, batch = make_outputs(), make_batch()
    plain = {name: value.item() for name, value in make_loss()(outputs, batch).items()}
    for part, change in (
        ("segmentation", {"t_pos": 0.6}),
        ("segmentation", {"t_neg": 0.3}),
        ("segmentation", {"pseudo_weight": 0.6}),
        ("segmentation", {"rest_weight": 0.2}),
        ("segmentation", {"opening": 3}),
        ("object_embedding", {"batch_weight": 0.0}),
        ("pixel_contrastive", {"temperature": 0.5}),
        ("pixel_contrastive", {"t_contrast": 1.0}),
        ("pixel_contrastive", {"max_pixels": 2}),
    ):
        changed = make_loss(**change)(outputs, batch)
        differ = {name for name in PARTS if changed[name].item() != pytest.approx(plain[name], rel=1e-5)}
        assert differ == {part}, change


@pytest.mark.parametrize("off", PARTS)
def test_a_part_switched_off_is_not_computed(off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError(off)

    monkeypatch.setattr(FUNCTIONS[off], off, refuse)
    weights = WEIGHTS | {off: 0}
    loss = make_loss(weights=weights)
    outputs, batch = make_outputs(), make_batch()
    for head in outputs.keys() - set(loss.required_heads):
        del outputs[head]
    batch["targets"].pop(off, None)
    assert set(loss(outputs, batch)) == set(PARTS) - {off} == set(loss.weights)
    with pytest.raises((AssertionError, ValueError)):
        make_loss()(make_outputs(), make_batch())


def test_it_says_which_heads_it_reads_and_that_only_training_has_its_targets() -> None:
    assert make_loss().training_only
    every = ("segmentation", "hv", "reconstruction", "object_embedding", "pixel_embedding")
    assert make_loss().required_heads == every
    assert make_loss(weights=only("segmentation", "edge", "total_variation", "small_hole")).required_heads == every[:1]
    assert make_loss(weights=only("pixel_contrastive")).required_heads == ("segmentation", "pixel_embedding")


def masks() -> dict[str, torch.Tensor]:
    one = torch.zeros(B, H, W, dtype=torch.int64)
    one[0, 4:9, 3:8] = 1
    return {
        "no positive": torch.zeros_like(one),
        "no negative": torch.ones_like(one),
        "one object": one,
        "nothing known": torch.full_like(one, 255),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize("case", masks())
def test_values_and_gradients_are_finite(case: str, weak: bool, dtype: torch.dtype) -> None:
    for size in (1.0, -1.0, 1e4, -1e4):
        outputs = make_outputs(dtype=dtype)
        outputs["segmentation"] = torch.full((B, 1, H, W), size, dtype=dtype)
        outputs["segmentation"][..., ::2] *= -1 if abs(size) == 1 else 1
        outputs["segmentation"].requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            found = make_loss()(outputs, make_batch(masks()[case], weak))
        assert all(value.dtype == torch.float32 and value.isfinite() for value in found.values())
        for part, value in found.items():
            gradients = torch.autograd.grad(value, list(outputs.values()), retain_graph=True, allow_unused=True)
            read = [gradient for gradient in gradients if gradient is not None]
            assert read, part  # a gradient path, whatever there is to count
            assert all(gradient.isfinite().all() for gradient in read), (part, size)


def test_nothing_known_is_zero() -> None:
    outputs = make_outputs()
    found = make_loss()(outputs, make_batch(masks()["nothing known"]))
    assert [value.item() for value in found.values()] == [0] * 8
    torch.stack(list(found.values())).sum().backward()
    assert all((output.grad == 0).all() for output in outputs.values())


def test_wrong_certainty_still_has_a_slope() -> None:
    outputs = make_outputs()
    mask = masks()["one object"]
    outputs["segmentation"] = torch.where(mask == 1, -1e4, 1e4).unsqueeze(1).requires_grad_()
    found = make_loss(weights=only("segmentation", "edge"))(outputs, make_batch(mask, weak=False))
    gradients = [torch.autograd.grad(found[p], outputs["segmentation"], retain_graph=True)[0] for p in found]
    assert (gradients[0][:, 0][mask == 1] < 0).all()
    assert (gradients[0][:, 0][mask == 0] > 0).all()
    assert gradients[1].abs().sum() > 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_raised_outputs(dtype: torch.dtype) -> None:
    halves = make_outputs(dtype=dtype)
    batch = make_batch()
    results = []
    for outputs in (halves, {name: output.float() for name, output in halves.items()}):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype, enabled=outputs is halves):
            results.append(make_loss()(outputs, batch))
    for part in PARTS:
        assert torch.equal(results[0][part], results[1][part])


def test_ignored_pixels_change_nothing() -> None:
    outputs, batch = make_outputs(), make_batch()
    other = {name: output.detach().clone() for name, output in outputs.items()}
    for name in ("segmentation", "hv", "reconstruction"):
        other[name][..., 0, :] = 7
    for part, value in make_loss(weights=WEIGHTS | {"pixel_contrastive": 0})(outputs, batch).items():
        again = make_loss(weights=WEIGHTS | {"pixel_contrastive": 0})(other, batch)[part]
        torch.testing.assert_close(value, again, msg=part)


def test_embeddings_must_have_length_one() -> None:
    outputs = make_outputs()
    outputs["pixel_embedding"] = 2 * outputs["pixel_embedding"]
    with pytest.raises(ValueError, match=r"'pixel_embedding'.*length 1.*Found 2"):
        make_loss()(outputs, make_batch())
    make_loss(weights=WEIGHTS | {"pixel_contrastive": 0})(outputs, make_batch())


def test_what_is_missing_is_named() -> None:
    outputs, batch = make_outputs(), make_batch()
    with pytest.raises(ValueError, match=r"Found no \['hv'\]"):
        make_loss()({name: output for name, output in outputs.items() if name != "hv"}, batch)
    with pytest.raises(ValueError, match=r"Part `hv` needs.*target \(2, 16, 12\).*and None"):
        make_loss()(outputs, {"masks": batch["masks"]})
    batch["targets"]["reconstruction"] = torch.zeros(B, 3, 1, 1)
    with pytest.raises(ValueError, match=r"`reconstruction` needs.*\(2, 3, 1, 1\)"):
        make_loss()(outputs, batch)
    with pytest.raises(ValueError, match="weighs pixels by what is annotated"):
        make_loss()(outputs, make_batch() | {"weights": {"segmentation": torch.ones(B, H, W)}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"segmentation": 1.0}}, "should name the parts"),
        ({"weights": WEIGHTS | {"sheen": 1.0}}, "sheen"),
        ({"weights": WEIGHTS | {"hv": -1.0}}, r"\{'hv': -1.0\}"),
        ({"weights": WEIGHTS | {"hv": float("nan")}}, "finite"),
        ({"weights": dict.fromkeys(PARTS, 0)}, "zeros only"),
        ({"head": "depth"}, "Found `loss.head = depth`"),
        ({"class_counts": {"segmentation": torch.ones(3)}}, "two classes.*'segmentation': 3"),
        ({"t_pos": 0.1, "t_neg": 0.1}, r"`loss.t_neg` should be in \[0, t_pos\)"),
        ({"t_pos": 1.1}, "`loss.t_pos` should be at most 1"),
        ({"opening": 4, "temperature": 0.0}, "`loss.opening`.*`loss.temperature`"),
        ({"max_pixels": 1}, "`loss.max_pixels` should be at least 2"),
        ({"t_contrast": 0.0}, "t_contrast"),
        ({"pseudo_weight": -0.1}, "pseudo_weight"),
    ],
)
def test_arguments_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_loss(**changes)


class Operations(TorchDispatchMode):
    """Counts the operations that are carried out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weak", [True, False])
def test_a_larger_batch_takes_no_more_operations(weak: bool) -> None:
    counts = []
    for copies in (1, 4):
        outputs = {name: torch.cat([output.detach()] * copies) for name, output in make_outputs().items()}
        batch = make_batch(weak=weak)
        for group in batch:
            batch[group] = {name: torch.cat([value] * copies) for name, value in batch[group].items()}
        with Operations() as operations:
            make_loss()(outputs, batch)
        counts.append(operations.count)
    assert counts[0] == counts[1] > 0


def make(seed: int, weak: bool) -> tuple[Pixels, torch.Tensor, np.ndarray, np.ndarray]:
    """Pixels in float64 with gradient, their logits, and mask (unlabelled objects taken out) and p as arrays."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([0, 0, 0, 1, 1, 1, 255])[torch.randint(0, 7, SHAPE, generator=generator)]
    unlabelled = torch.rand(SHAPE, generator=generator) < 0.5 if weak else None
    logits = torch.randn(SHAPE[0], 1, *SHAPE[1:], generator=generator, dtype=torch.float64) * 3
    pixels = read_pixels(logits.requires_grad_(), mask, unlabelled)
    read = mask.numpy().copy()
    if unlabelled is not None:
        read[unlabelled.numpy() & (read == 1)] = 0
    return pixels, logits, read, 1 / (1 + np.exp(-logits.detach().numpy()[:, 0]))


def places(mask: np.ndarray) -> list[tuple[int, int, int]]:
    return [place for place in np.ndindex(mask.shape) if mask[place] != 255]


def bce(p: float, target: int) -> float:
    return -math.log(p if target else 1 - p)


@both
def test_segmentation(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    target, weight = weak_targets(pixels, 0.8, 0.1, 0.3, 0.05)
    entropy = overlap = predicted = true = total = 0.0
    for place in places(mask):
        w, t = weight[place].item(), int(target[place])
        total, entropy = total + w, entropy + w * bce(p[place], t)
        overlap, predicted, true = overlap + w * p[place] * t, predicted + w * p[place], true + w * t
    wanted = entropy / total + 1 - (2 * overlap + 1) / (predicted + true + 1)
    assert maps.segmentation(pixels, target, weight).item() == pytest.approx(wanted)


def test_segmentation_with_full_labels_is_bce_plus_dice() -> None:
    pixels, logits, mask, _ = make(0, False)
    valid = torch.from_numpy(mask != 255)
    z, t = logits[:, 0][valid], torch.from_numpy(mask == 1)[valid].double()
    dice = 1 - (2 * (z.sigmoid() * t).sum() + 1) / (z.sigmoid().sum() + t.sum() + 1)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(z, t) + dice
    torch.testing.assert_close(maps.segmentation(pixels, pixels.positive, pixels.weight), wanted)


@both
def test_edge(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    losses = []
    for b, y, x in places(mask):
        window = np.pad(mask[b], 1, mode="edge")[y : y + 3, x : x + 3]
        if (window == 255).any():
            continue
        if math.hypot((SOBEL * window).sum(), (SOBEL.T * window).sum()) > 0:
            losses.append(bce(p[b, y, x], mask[b, y, x]))
    assert maps.edge(pixels).item() == pytest.approx(np.mean(losses) if losses else 0)


def test_edge_of_a_clean_mask() -> None:
    mask = torch.zeros(1, 12, 12, dtype=torch.int64)
    mask[0, 3:8, 2:9] = 1
    support = maps.sobel_support(mask == 1, mask != 255)[0].numpy()
    padded = np.pad(mask[0].numpy(), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    magnitude = np.hypot((windows * SOBEL).sum((2, 3)), (windows * SOBEL.T).sum((2, 3)))
    assert np.array_equal(support, magnitude > 0)
    assert support.sum() == (7 * 9) - (3 * 5)  # a ring of two pixels


@both
def test_hv(seed: int, weak: bool) -> None:
    pixels, _, mask, _ = make(seed, weak)
    prediction, target = torch.rand(2, *SHAPE, dtype=torch.float64)
    errors = [(prediction[i] - target[i]).item() ** 2 for i in places(mask) if mask[i] == 1]
    assert maps.hv(prediction.unsqueeze(1), target, pixels).item() == pytest.approx(np.mean(errors))


@both
def test_reconstruction(seed: int, weak: bool) -> None:
    pixels, _, mask, _ = make(seed, weak)
    prediction, image = torch.rand(2, SHAPE[0], 3, *SHAPE[1:], dtype=torch.float64)
    errors = [(prediction[b, c, y, x] - image[b, c, y, x]).item() ** 2 for b, y, x in places(mask) for c in range(3)]
    assert maps.reconstruction(prediction, image, pixels).item() == pytest.approx(np.mean(errors))


@both
def test_total_variation(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    steps = []
    for b, y, x in places(mask):
        for other in ((b, y + 1, x), (b, y, x + 1)):
            if other in set(places(mask)):
                steps.append(abs(p[b, y, x] - p[other]))
    assert maps.total_variation(pixels).item() == pytest.approx(np.mean(steps))


@both
def test_small_hole(seed: int, weak: bool) -> None:
    pixels, _, mask, p = make(seed, weak)
    values = []
    for b, y, x in places(mask):
        around = itertools.product((b,), range(y - 1, y + 2), range(x - 1, x + 2))
        d = np.mean([p[place] for place in around if place in set(places(mask))])
        values.append(p[b, y, x] * (1 - d) + (1 - p[b, y, x]) * d)
    assert maps.small_hole(pixels).item() == pytest.approx(np.mean(values))


def test_a_hole_costs_more_than_a_full_disc() -> None:
    logits = torch.full((1, 1, 9, 9), 20.0)
    mask = torch.zeros(1, 9, 9, dtype=torch.int64)
    full = maps.small_hole(read_pixels(logits, mask)).item()
    logits[..., 4, 4] = -20
    assert full == pytest.approx(0, abs=1e-6)
    assert maps.small_hole(read_pixels(logits, mask)).item() == pytest.approx((8 / 9 + 8 / 9) / 81)


@pytest.mark.parametrize("part", [maps.edge, maps.total_variation, maps.small_hole, "segmentation"])
def test_gradients(part: object) -> None:
    _, logits, _, _ = make(0, True)
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([0, 0, 0, 1, 1, 1, 255])[torch.randint(0, 7, SHAPE, generator=generator)]
    weight = torch.rand(SHAPE, generator=generator, dtype=torch.float64) * (mask != 255)

    def compute(values: torch.Tensor) -> torch.Tensor:
        pixels = read_pixels(values, mask)
        return part(pixels) if callable(part) else maps.segmentation(pixels, pixels.positive, weight)

    assert gradcheck(compute, (logits,))


def test_one_pixel_has_no_neighbour() -> None:
    pixels = read_pixels(torch.zeros(1, 1, 1, 1, requires_grad=True), torch.ones(1, 1, 1).long())
    assert maps.total_variation(pixels).item() == 0
    assert maps.edge(pixels).item() == 0
    assert maps.small_hole(pixels).item() == 0.5


def random_pixels(seed: int, shape: tuple[int, int, int] = (3, 7, 6)) -> tuple[Pixels, torch.Tensor, torch.Tensor]:
    """Pixels with all kinds of labels, the mask and what is unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([0, 0, 1, 255])[torch.randint(0, 4, shape, generator=generator)]
    unlabelled = torch.rand(shape, generator=generator) < 0.5
    logits = 4 * torch.randn(shape[0], 1, *shape[1:], generator=generator)
    return read_pixels(logits, mask, unlabelled), mask, unlabelled


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 3]))
def test_pseudo_labels_never_touch_annotated_pixels(seed: int, size: int) -> None:
    pixels, mask, unlabelled = random_pixels(seed)
    target, weight = weak_targets(pixels, **RULES, opening=size)
    annotated = (mask != 255) & ~unlabelled
    assert torch.equal(target[annotated], mask[annotated] == 1)
    assert (weight[annotated] == 1).all()
    assert (weight[mask == 255] == 0).all()
    assert not target[mask == 255].any()


@pytest.mark.parametrize("seed", range(4))
def test_every_pixel_by_the_table(seed: int) -> None:
    pixels, mask, unlabelled = random_pixels(seed)
    target, weight = weak_targets(pixels, **RULES)
    for b, y, x in np.ndindex(*mask.shape):
        valid = mask[b] != 255
        share = (valid & (mask[b] == 1) & ~unlabelled[b]).sum().item() / valid.sum().item()
        p = torch.sigmoid(pixels.logits[b, y, x]).item()
        if mask[b, y, x] == 255:
            wanted = (0, 0.0)
        elif not unlabelled[b, y, x]:
            wanted = (int(mask[b, y, x]), 1.0)
        elif p > 0.8 or p < 0.1:
            wanted = (int(p > 0.8), 0.3)
        else:
            wanted = (0, 0.05 * (1 - share))
        assert (int(target[b, y, x]), weight[b, y, x].item()) == pytest.approx(wanted)


def test_full_labels_weigh_one() -> None:
    mask = torch.tensor([[[1, 0, 255]]])
    target, weight = weak_targets(read_pixels(torch.full((1, 1, 1, 3), 9.0), mask), **RULES)
    assert target.tolist() == [[[True, False, False]]]
    assert weight.tolist() == [[[1, 1, 0]]]


def test_a_picture_without_a_valid_pixel() -> None:
    mask = torch.full((1, 2, 2), 255)
    target, weight = weak_targets(read_pixels(torch.zeros(1, 1, 2, 2), mask, torch.ones(1, 2, 2).bool()), **RULES)
    assert not target.any()
    assert weight.tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("size", [0, 1, 3, 5])
def test_opening_equals_scikit_image(size: int) -> None:
    mask = np.random.default_rng(size).random((2, 20, 23)) < 0.8
    mask[0] = ndimage.binary_closing(mask[0])
    side = max(size, 1)
    for found, picture in zip(opened(torch.from_numpy(mask), size), mask, strict=True):
        assert np.array_equal(found.numpy(), opening(picture, np.ones((side, side))))


def test_opening_reaches_the_targets() -> None:
    logits = torch.full((1, 1, 9, 9), 0.0)
    logits[..., 1:4, 1:4], logits[..., 7, 7] = 5.0, 5.0  # a square of 3 and a speck
    pixels = read_pixels(logits, torch.zeros(1, 9, 9).long(), torch.ones(1, 9, 9).bool())
    assert weak_targets(pixels, **RULES)[0].sum() == 10
    assert weak_targets(pixels, **RULES, opening=3)[0].sum() == 9


def test_resized_reads_the_pixel_below_the_centre() -> None:
    mask = torch.rand(2, 12, 9)
    peer = torch.nn.functional.interpolate(mask[:, None], (5, 4), mode="nearest-exact")[:, 0]
    assert torch.equal(resize_labels(mask, (5, 4)), peer)
    assert resize_labels(mask, (24, 18)).shape == (2, 24, 18)
    assert resize_labels(mask, (12, 9)) is mask


def test_shapes_and_types_are_checked() -> None:
    mask = torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match="one channel"):
        read_pixels(torch.zeros(1, 2, 2, 2), mask)
    with pytest.raises(ValueError, match="`logits` should be"):
        read_pixels(torch.zeros(1, 1, 3, 2), mask)
    with pytest.raises(ValueError, match="`unlabelled` should be bool"):
        read_pixels(torch.zeros(1, 1, 2, 2), mask, mask)
