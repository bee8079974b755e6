"""The contract of a loss term, for every term there is."""

import pytest
import torch
from torch import Tensor, nn

from hsl.losses.cross_entropy import CrossEntropy, Focal
from hsl.losses.overlap import Dice, Jaccard, Lovasz, Tversky

TERMS = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.1),
    Dice(),
    Dice(smooth=0.0, classes="all"),
    Focal(),
    Focal(gamma=0.5),
    Jaccard(),
    Lovasz(),
    Tversky(),
    Tversky(gamma=1.5),
]
pytestmark = pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)


def make(seed: int = 0, dtype: torch.dtype = torch.float32, size: tuple[int, int] = (5, 7)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, *size, generator=generator, dtype=dtype)
    target = torch.randint(0, 4, (3, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return logits, target


def weights_for(term: nn.Module) -> Tensor | None:
    return torch.tensor([0.5, 1.0, 2.0, 0.5]) if term.takes_class_weights else None


def test_scalar_of_float32(term: nn.Module) -> None:
    loss = term(*make())
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0


def test_perfect_is_zero(term: nn.Module) -> None:
    _, target = make()
    logits = 60.0 * (target.unsqueeze(1) == torch.arange(4).view(1, 4, 1, 1)).float()
    smoothing = getattr(term, "label_smoothing", 0.0)
    # Smoothing costs eps/C of the distance to each of the three wrong classes.
    assert term(logits, target).item() == pytest.approx(smoothing * 60 * 3 / 4, abs=1e-6)


def test_all_wrong_is_worse_than_uniform(term: nn.Module) -> None:
    _, target = make()
    wrong = 60.0 * ((target.unsqueeze(1) + 1) % 4 == torch.arange(4).view(1, 4, 1, 1)).float()
    assert term(wrong, target) > term(torch.zeros_like(wrong), target) > 0


@pytest.mark.parametrize("weighted", [False, True])
def test_all_ignored_is_zero_with_zero_gradient(term: nn.Module, weighted: bool) -> None:
    logits = make()[0].requires_grad_()
    loss = term(logits, torch.full((3, 5, 7), 255), weights_for(term) if weighted else None)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ignored_pixels_change_nothing(term: nn.Module) -> None:
    logits, target = make()
    other = torch.where((target == 255).unsqueeze(1), 1e3 * torch.randn_like(logits), logits).requires_grad_()
    loss = term(other, target, weights_for(term))
    torch.testing.assert_close(loss, term(logits, target, weights_for(term)))
    loss.backward()
    assert other.grad is not None
    assert (other.grad.movedim(1, -1)[target == 255] == 0).all()


def test_gradient_reaches_the_logits(term: nn.Module) -> None:
    logits, target = make()
    logits.requires_grad_()
    term(logits, target, weights_for(term)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad.movedim(1, -1)[target != 255] != 0).any(dim=-1).float().mean() > 0.9


def test_order_of_pixels_and_pictures_is_irrelevant(term: nn.Module) -> None:
    logits, target = make()
    order = torch.randperm(35)
    shuffled = logits[[2, 0, 1]].flatten(2)[..., order].unflatten(2, (7, 5))
    shuffled_target = target[[2, 0, 1]].flatten(1)[..., order].unflatten(1, (7, 5))
    torch.testing.assert_close(
        term(shuffled, shuffled_target, weights_for(term)), term(logits, target, weights_for(term))
    )


def test_renaming_the_classes_is_irrelevant(term: nn.Module) -> None:
    logits, target = make()
    order = torch.tensor([2, 0, 3, 1])
    table = torch.full((256,), 255)
    table[order] = torch.arange(4)
    weights = weights_for(term)
    torch.testing.assert_close(
        term(logits[:, order], table[target], None if weights is None else weights[order]),
        term(logits, target, weights),
    )


def test_gradient_is_the_derivative(term: nn.Module) -> None:
    logits, target = make(dtype=torch.float64, size=(2, 3))
    weights = weights_for(term)
    # smp's Lovasz knows float32 only, hence the coarse difference.
    coarse = {"eps": 1e-3, "atol": 1e-3} if isinstance(term, Lovasz) else {}
    assert torch.autograd.gradcheck(lambda x: term(x, target, weights), logits.requires_grad_(), **coarse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(term: nn.Module, dtype: torch.dtype) -> None:
    logits, target = make()
    half = logits.to(dtype)
    loss = term(half, target, weights_for(term))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, term(half.float(), target, weights_for(term)))


def test_one_picture_of_one_pixel_of_one_class(term: nn.Module) -> None:
    assert term(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)).isfinite()


@pytest.mark.parametrize(
    ("shape", "target_shape", "dtype"),
    [
        ((2, 3, 4, 4), (2, 4, 5), torch.int64),
        ((2, 3, 4, 4), (1, 4, 4), torch.int64),
        ((2, 3, 4, 4), (2, 3, 4, 4), torch.int64),
        ((3, 4, 4), (3, 4, 4), torch.int64),
        ((2, 3, 4, 4), (2, 4, 4), torch.uint8),
        ((2, 3, 4, 4), (2, 4, 4), torch.float32),
    ],
)
def test_unfit_shapes_and_types(
    term: nn.Module, shape: tuple[int, ...], target_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=r"should be .* Found"):
        term(torch.zeros(shape), torch.zeros(target_shape, dtype=dtype))


def test_class_weights_of_another_length(term: nn.Module) -> None:
    with pytest.raises(ValueError, match="class_weights"):
        term(*make(), torch.ones(3))
