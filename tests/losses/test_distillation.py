"""A student's loss against SciPy, against its own control, and against itself."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, rel_entr, softmax
from torch import Tensor, nn

from hsl.batch import ATTENTION
from hsl.errors import ConfigError
from hsl.losses.distillation import Distillation, attention_transfer, distance_to_teacher
from hsl.losses.dual_head import DualHeadLoss
from hsl.losses.image_loss import ImageCrossEntropy, MultilabelFocal
from hsl.losses.protocols import Loss
from hsl.models.heads import AttentionHead

COUNTS = {"segmentation": torch.tensor([70, 20, 10]), "classification": torch.tensor([6, 4])}
WEIGHTS = {"segmentation": 0.4, "classification": 0.6}
DUAL = partial(DualHeadLoss, partial(ImageCrossEntropy, class_weights="inverse_sqrt"), weights=WEIGHTS)


def make(labels: Any = DUAL, counts: Any = COUNTS, **changed: Any) -> Distillation:
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
    loss = make(alpha=0.7, attention=2.0)
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
    assert make(heads=["classification"]).weights.keys() == WEIGHTS.keys() | {"distillation_classification"}


def test_several_classes_are_known_by_their_labels() -> None:
    counts = {"classification": torch.tensor([6, 4])}
    loss = make(partial(MultilabelFocal, weights={"classification": 1.0}), counts)
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
    control = make(alpha=0.0, temperature=1.0, teachers=None)
    assert not control.training_only
    found = trained(control)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert not torch.equal(trained(make())["features.weight"], plain["features.weight"])


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
    found = make(attention=1.0)(outputs, batch)[ATTENTION].item()
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_errors() -> None:
    for changed in ({"alpha": 1.1}, {"alpha": float("nan")}, {"temperature": 0.0}, {"attention": -1.0}):
        with pytest.raises(ConfigError, match=r"`loss\.alpha` should be in"):
            make(**changed)
    for heads in ([], ["leaf"]):
        with pytest.raises(ConfigError, match=r"`loss\.heads` should be null or name heads"):
            make(heads=heads)
    with pytest.raises(ConfigError, match=r"Found none\. `loss\.alpha=0 loss\.attention=0` is the same student"):
        make(teachers=None)
    with pytest.raises(ConfigError, match="No head should be called `attention`"):
        make(counts=COUNTS | {ATTENTION: torch.tensor([1, 1])}, attention=1.0)
    outputs, batch = case()
    del batch["teachers"]["segmentation"], batch["teachers"][ATTENTION]
    with pytest.raises(ConfigError, match=r"targets of `segmentation`. Found those of \['classification'\]"):
        make()(outputs, batch)
    assert make(heads=["classification"])(outputs, batch)  # the way out
    with pytest.raises(ConfigError, match=r"leave it out with `loss\.attention=0`"):
        make(heads=["classification"], attention=1.0)(outputs, batch)
    batch["teachers"]["classification"] = torch.rand(2, 3)
    with pytest.raises(ValueError, match="the shape of the logits"):
        make(heads=["classification"])(outputs, batch)
