from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hsl.errors import ConfigError
from hsl.losses.eight_part import embedding_parts as eight_part_embeddings
from hsl.losses.eight_part import pixel_parts as eight_part_pixels
from hsl.losses.eight_part.loss import PARTS, EightPartLoss
from hsl.losses.eight_part.weak_labels import read_pixels, resize_labels

WEIGHTS = dict(zip(PARTS, (2.0, 10.0, 1.0, 0.5, 0.5, 0.1, 0.1, 0.1), strict=True))
COUNTS = {"segmentation": torch.tensor([900, 100])}
FUNCTIONS = {
    part: eight_part_embeddings if part in ("object_embedding", "pixel_contrastive") else eight_part_pixels
    for part in PARTS
}
B, H, W = 2, 16, 12


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
