import itertools
import math

import pytest
import torch

from hsl.errors import ConfigError
from hsl.losses.cross_entropy import CrossEntropy, Focal


def test_smoothing_reaches_the_formula() -> None:
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    hard, soft = CrossEntropy()(logits, target), CrossEntropy(0.2)(logits, target)
    assert (soft - hard).item() == pytest.approx(0.1 * 2.0)  # a tenth of the mass moves over a distance of 2


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, float("nan")])
def test_range(label_smoothing: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        CrossEntropy(label_smoothing)


def test_gamma_reaches_the_formula() -> None:
    logits, target = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)
    assert Focal(gamma=3.0)(logits, target).item() == pytest.approx(math.log(2) / 8)


@pytest.mark.parametrize("gamma", [-1.0, float("nan")])
def test_range_of_gamma(gamma: float) -> None:
    with pytest.raises(ConfigError, match="gamma"):
        Focal(gamma)


def random_case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, 0] = 255
    return torch.randn(2, 3, 4, 5, generator=generator), target


@pytest.mark.parametrize("alpha", [0.25, 1, [0.1, 0.5, 1.0]])
@pytest.mark.parametrize("weighted", [False, True])
def test_alpha_against_a_loop_over_the_pixels(alpha: float | list[float], weighted: bool) -> None:
    logits, target = random_case()
    weights = torch.tensor([0.5, 1.0, 1.5]) if weighted else None
    factors = alpha if isinstance(alpha, list) else [alpha] * 3
    losses = []
    for b, y, x in itertools.product(range(2), range(4), range(5)):
        if (t := int(target[b, y, x])) != 255:
            p = logits[b, :, y, x].double().softmax(0)[t].item()
            losses.append(-factors[t] * (float(weights[t]) if weights is not None else 1) * (1 - p) ** 2 * math.log(p))
    found = Focal(alpha=alpha)(logits, target, weights)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_one_alpha_scales_and_none_is_one() -> None:
    logits, target = random_case()
    assert Focal(alpha=0.25)(logits, target).item() == pytest.approx(0.25 * Focal()(logits, target).item())
    assert Focal(alpha=None)(logits, target).item() == Focal(alpha=1.0)(logits, target).item()
    assert not list(Focal(alpha=0.25).state_dict())  # so that older checkpoints fit


@pytest.mark.parametrize("alpha", [-0.1, 1.1, 0.0, float("nan"), [0.0, 0.0], [0.5, 2.0], []])
def test_alpha_out_of_its_range(alpha: float | list[float]) -> None:
    with pytest.raises(ConfigError, match=r"`alpha` should be one number or one for each class, in \[0, 1\]"):
        Focal(alpha=alpha)


def test_as_many_alphas_as_classes() -> None:
    with pytest.raises(ConfigError, match=r"`alpha` should be one number or 3 of them.*Found 2"):
        Focal(alpha=[0.5, 0.5])(*random_case())
