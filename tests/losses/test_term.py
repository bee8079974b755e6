"""The contract of a loss term, and a student's loss."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, rel_entr, softmax
from torch import Tensor, nn

from hsl.batch import ATTENTION
from hsl.errors import ConfigError
from hsl.losses.cross_entropy import CrossEntropy, Focal
from hsl.losses.distillation import Distillation, attention_transfer, distance_to_teacher
from hsl.losses.dual_head import DualHeadLoss
from hsl.losses.image_loss import ImageCrossEntropy, MultilabelFocal
from hsl.losses.overlap import Dice, Jaccard, Lovasz, Tversky
from hsl.losses.protocols import Loss
from hsl.models.heads import AttentionHead

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
every_term = pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)


def make(seed: int = 0, dtype: torch.dtype = torch.float32, size: tuple[int, int] = (5, 7)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, *size, generator=generator, dtype=dtype)
    target = torch.randint(0, 4, (3, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return logits, target


def weights_for(term: nn.Module) -> Tensor | None:
    return torch.tensor([0.5, 1.0, 2.0, 0.5]) if term.takes_class_weights else None


@every_term
def test_scalar_of_float32(term: nn.Module) -> None:
    loss = term(*make())
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0


@every_term
def test_perfect_is_zero(term: nn.Module) -> None:
    _, target = make()
    logits = 60.0 * (target.unsqueeze(1) == torch.arange(4).view(1, 4, 1, 1)).float()
    smoothing = getattr(term, "label_smoothing", 0.0)
    # Smoothing costs eps/C of the distance to each of the three wrong classes.
    assert term(logits, target).item() == pytest.approx(smoothing * 60 * 3 / 4, abs=1e-6)


@every_term
def test_all_wrong_is_worse_than_uniform(term: nn.Module) -> None:
    _, target = make()
    wrong = 60.0 * ((target.unsqueeze(1) + 1) % 4 == torch.arange(4).view(1, 4, 1, 1)).float()
    assert term(wrong, target) > term(torch.zeros_like(wrong), target) > 0


@every_term
@pytest.mark.parametrize("weighted", [False, True])
def test_all_ignored_is_zero_with_zero_gradient(term: nn.Module, weighted: bool) -> None:
    logits = make()[0].requires_grad_()
    loss = term(logits, torch.full((3, 5, 7), 255), weights_for(term) if weighted else None)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_term
def test_ignored_pixels_change_nothing(term: nn.Module) -> None:
    logits, target = make()
    other = torch.where((target == 255).unsqueeze(1), 1e3 * torch.randn_like(logits), logits).requires_grad_()
    loss = term(other, target, weights_for(term))
    torch.testing.assert_close(loss, term(logits, target, weights_for(term)))
    loss.backward()
    assert other.grad is not None
    assert (other.grad.movedim(1, -1)[target == 255] == 0).all()


@every_term
def test_gradient_reaches_the_logits(term: nn.Module) -> None:
    logits, target = make()
    logits.requires_grad_()
    term(logits, target, weights_for(term)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad.movedim(1, -1)[target != 255] != 0).any(dim=-1).float().mean() > 0.9


@every_term
def test_order_of_pixels_and_pictures_is_irrelevant(term: nn.Module) -> None:
    logits, target = make()
    order = torch.randperm(35)
    shuffled = logits[[2, 0, 1]].flatten(2)[..., order].unflatten(2, (7, 5))
    shuffled_target = target[[2, 0, 1]].flatten(1)[..., order].unflatten(1, (7, 5))
    torch.testing.assert_close(
        term(shuffled, shuffled_target, weights_for(term)), term(logits, target, weights_for(term))
    )


@every_term
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


@every_term
def test_gradient_is_the_derivative(term: nn.Module) -> None:
    logits, target = make(dtype=torch.float64, size=(2, 3))
    weights = weights_for(term)
    # smp's Lovasz knows float32 only, hence the coarse difference.
    coarse = {"eps": 1e-3, "atol": 1e-3} if isinstance(term, Lovasz) else {}
    assert torch.autograd.gradcheck(lambda x: term(x, target, weights), logits.requires_grad_(), **coarse)


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(term: nn.Module, dtype: torch.dtype) -> None:
    logits, target = make()
    half = logits.to(dtype)
    loss = term(half, target, weights_for(term))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, term(half.float(), target, weights_for(term)))


@every_term
def test_one_picture_of_one_pixel_of_one_class(term: nn.Module) -> None:
    assert term(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64)).isfinite()


@every_term
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


@every_term
def test_class_weights_of_another_length(term: nn.Module) -> None:
    with pytest.raises(ValueError, match="class_weights"):
        term(*make(), torch.ones(3))


# A student's loss against SciPy, against its own control, and against itself.


COUNTS = {"segmentation": torch.tensor([70, 20, 10]), "classification": torch.tensor([6, 4])}
WEIGHTS = {"segmentation": 0.4, "classification": 0.6}
DUAL = partial(DualHeadLoss, partial(ImageCrossEntropy, class_weights="inverse_sqrt"), weights=WEIGHTS)


def distilled(labels: Any = DUAL, counts: Any = COUNTS, **changed: Any) -> Distillation:
    return Distillation(labels, counts, counts, **({"teachers": "there"} | changed))


def case(seed: int = 0) -> tuple[dict[str, Tensor], Any]:
    rng = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (2, 4, 5), generator=rng)
    target[0, 0] = 255
    outputs = {
        "segmentation": torch.randn(2, 3, 4, 5, generator=rng),
        "classification": torch.randn(2, 2, generator=rng),
        ATTENTION: torch.rand(2, 1, 2, 3, generator=rng),
    }
    batch = {
        "masks": {"segmentation": target},
        "labels": {"classification": torch.tensor([0, 1])},
        "teachers": {
            "segmentation": torch.randn(2, 3, 4, 5, generator=rng).softmax(1),
            "classification": torch.randn(2, 2, generator=rng).softmax(1),
            ATTENTION: torch.rand(2, 1, 4, 6, generator=rng),
        },
    }
    return outputs, batch


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_distance_against_scipy(temperature: float) -> None:
    logits = case()[0]["segmentation"].double().numpy()
    of_teacher = np.random.default_rng(0).normal(size=logits.shape)  # the softmax of these, softened, is that of T
    found = distance_to_teacher(torch.tensor(logits), torch.tensor(softmax(of_teacher, axis=1)), temperature)
    q, p = softmax(of_teacher / temperature, axis=1), softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(found, temperature**2 * rel_entr(q, p).sum(axis=1), rtol=1e-10)


def test_several_classes_are_pairs() -> None:
    z, teacher, t = np.array([[0.3, -2.0, 1.0]]), np.array([[1.5, 0.2, -3.0]]), 4.0
    sigmoid = lambda x: np.exp(-logsumexp([0 * x, -x], axis=0))  # noqa: E731
    q, p = sigmoid(teacher / t), sigmoid(z / t)
    expected = t**2 * (rel_entr(q, p) + rel_entr(1 - q, 1 - p)).mean(axis=1)
    found = distance_to_teacher(torch.tensor(z), torch.tensor(sigmoid(teacher)), t, several=True)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_student_that_agrees_costs_nothing_and_sure_teachers_are_finite() -> None:
    logits = torch.randn(2, 3, 4, 5)
    assert distance_to_teacher(logits, logits.softmax(1), 4.0).abs().max() < 1e-5
    sure = torch.zeros(2, 3, 4, 5)
    sure[:, 1] = 1
    logits = logits.mul(50).requires_grad_()
    distance_to_teacher(logits, sure, 4.0).mean().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


def test_objectives_and_their_weights() -> None:
    outputs, batch = case()
    loss = distilled(alpha=0.7, attention=2.0)
    expected = {"segmentation": 0.3 * 0.4, "classification": 0.3 * 0.6, "distillation_segmentation": 0.7 * 0.4}
    expected |= {"distillation_classification": 0.7 * 0.6, ATTENTION: 2.0}
    assert loss.weights == pytest.approx(expected)
    assert loss.required_heads == (ATTENTION,)
    assert loss.training_only
    found = loss(outputs, batch)
    assert found.keys() == loss.weights.keys()
    plain = DUAL(class_counts=COUNTS, presence_pixels=COUNTS)(outputs, batch)
    assert {name: found[name].item() for name in plain} == {name: value.item() for name, value in plain.items()}
    distances = distance_to_teacher(outputs["segmentation"], batch["teachers"]["segmentation"], 4.0)
    valid = batch["masks"]["segmentation"] != 255
    torch.testing.assert_close(found["distillation_segmentation"], distances[valid].mean())
    batch["masks"]["segmentation"][:] = 255
    assert loss(outputs, batch)["distillation_segmentation"] == 0
    assert distilled(heads=["classification"]).weights.keys() == WEIGHTS.keys() | {"distillation_classification"}


def test_several_classes_are_known_by_their_labels() -> None:
    counts = {"classification": torch.tensor([6, 4])}
    loss = distilled(partial(MultilabelFocal, weights={"classification": 1.0}), counts)
    outputs, batch = case()
    batch["labels"] = {"classification": torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])}
    batch["teachers"]["classification"] = torch.tensor([[0.9, 0.9], [0.2, 0.1]])
    found = loss(outputs, batch)["distillation_classification"]
    wanted = distance_to_teacher(outputs["classification"], batch["teachers"]["classification"], 4.0, several=True)
    torch.testing.assert_close(found, wanted.mean())


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.pixels, self.images = nn.Conv2d(4, 3, 1), nn.Linear(4, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.features(image)
        return {"segmentation": self.pixels(features), "classification": self.images(features.mean((2, 3)))}


def trained(loss: Loss) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = Small()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for step in range(5):
        _, batch = case(step)
        objectives = loss(network(torch.rand(2, 3, 4, 5)), batch)
        assert objectives.keys() == loss.weights.keys()
        optimizer.zero_grad()
        torch.stack([loss.weights[name] * value for name, value in objectives.items()]).sum().backward()
        optimizer.step()
    return network.state_dict()


def test_the_control_is_plain_training_bit_for_bit() -> None:
    """The whole training: `tests/verbs/train/test_stop_part.py`."""
    plain = trained(DUAL(class_counts=COUNTS, presence_pixels=COUNTS))
    control = distilled(alpha=0.0, temperature=1.0, teachers=None)
    assert not control.training_only
    found = trained(control)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert not torch.equal(trained(distilled())["features.weight"], plain["features.weight"])


def test_attention_of_a_network_to_itself_is_nothing() -> None:
    features = torch.randn(3, 8, 4, 6, requires_grad=True)
    found = AttentionHead()(features)
    assert found.shape == (3, 1, 4, 6)
    loss = attention_transfer(found, found.detach())
    loss.backward()
    assert loss == 0
    assert not features.grad.any()  # and no NaN, though a norm has no slope at 0
    at_the_size_of_the_picture = found.detach().repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert attention_transfer(found, at_the_size_of_the_picture) < 1e-6


def test_attention_against_a_loop() -> None:
    outputs, batch = case()
    teacher = batch["teachers"][ATTENTION].numpy()
    expected = []
    for student, one in zip(outputs[ATTENTION].numpy(), teacher, strict=True):
        cells = np.array([[one[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(3)] for y in range(2)])
        s, t = student[0] / np.linalg.norm(student[0]), cells / np.linalg.norm(cells)
        expected.append(np.linalg.norm(s - t))
    found = distilled(attention=1.0)(outputs, batch)[ATTENTION].item()
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_errors() -> None:
    for changed in ({"alpha": 1.1}, {"alpha": float("nan")}, {"temperature": 0.0}, {"attention": -1.0}):
        with pytest.raises(ConfigError, match=r"`loss\.alpha` should be in"):
            distilled(**changed)
    for heads in ([], ["leaf"]):
        with pytest.raises(ConfigError, match=r"`loss\.heads` should be null or name heads"):
            distilled(heads=heads)
    with pytest.raises(ConfigError, match=r"Found none\. `loss\.alpha=0 loss\.attention=0` is the same student"):
        distilled(teachers=None)
    with pytest.raises(ConfigError, match="No head should be called `attention`"):
        distilled(counts=COUNTS | {ATTENTION: torch.tensor([1, 1])}, attention=1.0)
    outputs, batch = case()
    del batch["teachers"]["segmentation"], batch["teachers"][ATTENTION]
    with pytest.raises(ConfigError, match=r"targets of `segmentation`. Found those of \['classification'\]"):
        distilled()(outputs, batch)
    assert distilled(heads=["classification"])(outputs, batch)  # the way out
    with pytest.raises(ConfigError, match=r"leave it out with `loss\.attention=0`"):
        distilled(heads=["classification"], attention=1.0)(outputs, batch)
    batch["teachers"]["classification"] = torch.rand(2, 3)
    with pytest.raises(ValueError, match="the shape of the logits"):
        distilled(heads=["classification"])(outputs, batch)
