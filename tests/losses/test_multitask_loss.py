"""Sums of losses: over several tasks, and over the parts of an embedding."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hsl.batch import Batch
from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.class_weights import weigh_classes
from hsl.losses.cross_entropy import CrossEntropy, Focal
from hsl.losses.eight_part.embedding_parts import object_embedding, pixel_contrastive, sample_pixels
from hsl.losses.multitask_loss import MultitaskLoss, consistency
from hsl.losses.overlap import Dice, Lovasz

COUNTS = {"genus": torch.tensor([700, 200, 100]), "health": torch.tensor([900, 100])}
GENERATOR = torch.Generator().manual_seed(0)
OUTPUTS = {task: torch.randn(2, len(n), 4, 5, generator=GENERATOR) for task, n in COUNTS.items()}
MASKS = {task: torch.randint(0, len(n), (2, 4, 5), generator=GENERATOR) for task, n in COUNTS.items()}


def made(**changed: Any) -> MultitaskLoss:
    return MultitaskLoss(**({"pixel": Focal(), "region": Dice(), "class_counts": COUNTS} | changed))


def batch(**changed: torch.Tensor) -> Batch:
    size = torch.tensor([[4, 5]] * 2)
    return {"id": ["a", "b"], "image": torch.zeros(2, 3, 4, 5), "size": size, "masks": MASKS | changed}


def test_an_objective_is_the_hybrid_of_its_terms() -> None:
    loss = made(hybrid_alpha=0.3)
    objectives = loss(OUTPUTS, batch())
    assert list(objectives) == ["genus", "health"]
    for task, counts in COUNTS.items():
        weights = weigh_classes(counts, "inverse_sqrt")
        focal = functional.focal(OUTPUTS[task], MASKS[task], weights)
        dice = functional.soft_dice(OUTPUTS[task], MASKS[task], weights)
        torch.testing.assert_close(objectives[task], 0.3 * focal + 0.7 * dice)
        torch.testing.assert_close(loss.parts[f"{task}/pixel"], focal)
        torch.testing.assert_close(loss.parts[f"{task}/region"], dice)
    assert loss.weights == {"genus": 1.0, "health": 1.0}


def test_uniform_logits_by_hand() -> None:
    outputs = {"health": torch.zeros(1, 2, 1, 2)}
    given: Batch = batch(health=torch.zeros(1, 1, 2, dtype=torch.int64))
    loss = made(class_counts={"health": COUNTS["health"]}, class_weights=None)
    # focal: (1/2)^2 log 2; Dice: 1 - (2 * 1 + 1) / (1 + 2 + 1)
    assert loss(outputs, given)["health"].item() == pytest.approx(0.5 * 0.25 * math.log(2) + 0.5 * 0.25)


def test_overrides_of_one_task() -> None:
    special = {"pixel": CrossEntropy(), "hybrid_alpha": 1.0, "class_weights": None}
    objectives = made(overrides={"genus": special})(OUTPUTS, batch())
    torch.testing.assert_close(objectives["genus"], functional.cross_entropy(OUTPUTS["genus"], MASKS["genus"]))
    torch.testing.assert_close(objectives["health"], made()(OUTPUTS, batch())["health"])


def test_auxiliary_tasks_weigh_less_and_are_not_scaled_themselves() -> None:
    loss = made(primary=["genus"], implications=[["health", "genus"]])
    assert loss.weights == {"genus": 1.0, "health": 0.4, "consistency": 0.1}
    torch.testing.assert_close(loss(OUTPUTS, batch())["health"], made()(OUTPUTS, batch())["health"])


def logit(foreground: float) -> list[float]:
    """Logits of two classes that give this probability to class 1."""
    return [0.0, math.log(foreground / (1 - foreground))]


def test_consistency_by_hand() -> None:
    first = torch.tensor([logit(0.9), logit(0.2), logit(0.6), logit(0.8)]).T.reshape(1, 2, 2, 2)
    second = torch.tensor([logit(0.4), logit(0.7), logit(0.5), logit(0.1)]).T.reshape(1, 2, 2, 2)
    target = torch.zeros(1, 2, 2, dtype=torch.int64)
    ignored = target.clone()
    ignored[0, 1, 1] = 255
    # excesses 0.5, 0, 0.1, 0.7
    assert consistency(first, second, target, target).item() == pytest.approx(1.3 / 4)
    assert consistency(first, second, ignored, target).item() == pytest.approx(0.6 / 3)
    assert consistency(first, second, target, ignored).item() == pytest.approx(0.6 / 3)
    assert consistency(first, first, target, target).item() == 0
    outputs = {"genus": second, "health": first}
    both = made(
        class_counts={"genus": COUNTS["health"], "health": COUNTS["health"]},
        implications=[["health", "genus"], ["genus", "health"]],
    )(outputs, batch(genus=target, health=target))
    assert both["consistency"].item() == pytest.approx(1.3 / 4 + 0.5 / 4)


def test_more_classes_than_two_count_together_in_the_consistency() -> None:
    first = torch.log(torch.tensor([0.1, 0.5, 0.4])).reshape(1, 3, 1, 1)
    second = torch.log(torch.tensor([0.7, 0.3])).reshape(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    assert consistency(first, second, target, target).item() == pytest.approx(0.9 - 0.3)


def test_the_gradient_of_the_consistency_raises_one_and_lowers_the_other() -> None:
    first = torch.tensor(logit(0.9)).reshape(1, 2, 1, 1).requires_grad_()
    second = torch.tensor(logit(0.4)).reshape(1, 2, 1, 1).requires_grad_()
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    consistency(first, second, target, target).backward()
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad[0, 1].item() == pytest.approx(0.9 * 0.1)
    assert second.grad[0, 1].item() == pytest.approx(-0.4 * 0.6)


def test_a_task_without_labels_in_the_batch_is_zero_with_a_gradient_path() -> None:
    outputs = {task: logits.clone().requires_grad_() for task, logits in OUTPUTS.items()}
    nothing = torch.full((2, 4, 5), 255)
    objectives = made(implications=[["health", "genus"]])(outputs, batch(health=nothing))
    assert objectives["health"].item() == objectives["consistency"].item() == 0
    torch.stack(list(objectives.values())).sum().backward()
    for task, logits in outputs.items():
        assert logits.grad is not None
        assert bool(logits.grad.abs().sum() > 0) == (task == "genus")
    torch.testing.assert_close(objectives["genus"], made()(OUTPUTS, batch())["genus"])


def test_float32_under_autocast() -> None:
    half = {task: logits.bfloat16() for task, logits in OUTPUTS.items()}
    loss = made(implications=[["health", "genus"]])
    plain = loss({task: logits.float() for task, logits in half.items()}, batch())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(half, batch())
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, plain[name])


def test_class_weights_stay_out_of_checkpoints() -> None:
    loss = made()
    assert loss.state_dict() == {}
    assert loss.to("meta").class_weights_genus.is_meta


def test_presence_pixels_reach_median_frequency() -> None:
    pixels = {"genus": torch.tensor([1000, 400, 500]), "health": torch.tensor([1000, 200])}
    loss = made(class_weights="median_frequency", presence_pixels=pixels)
    expected = weigh_classes(COUNTS["health"], "median_frequency", presence_pixels=pixels["health"])
    torch.testing.assert_close(loss.class_weights_health, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"primary": ["coral"]}, r"`loss\.primary` should name tasks of .*Found \['coral'\]"),
        ({"primary": []}, r"`loss\.primary` should be all"),
        ({"overrides": {"coral": {}}}, r"`loss\.overrides` should name tasks"),
        ({"overrides": {"genus": {"gamma": 1.0}}}, r"`loss\.overrides\.genus` should be among.*\['gamma'\]"),
        ({"overrides": {"genus": {"hybrid_alpha": 1.5}}}, r"of task `genus`.*hybrid_alpha = 1\.5"),
        ({"hybrid_alpha": -0.1}, r"in \[0, 1\]"),
        ({"implications": [["genus", "coral"]]}, r"`loss\.implications` should name tasks"),
        ({"implications": [["genus", "genus"]]}, "pairs of different tasks"),
        ({"implications": [["genus"]]}, "pairs of different tasks"),
        ({"class_counts": COUNTS | {"consistency": COUNTS["health"]}}, "No task should be called `consistency`"),
        ({"region": Lovasz()}, r"task `genus` should take class weights.*\['region'\]"),
    ],
)
def test_what_cannot_be(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(**changed)


def test_logits_with_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        made()(OUTPUTS | {"health": torch.zeros(2, 3, 4, 5)}, batch())


# Embedding parts.


SHAPE = (3, 4, 5)


def make(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = F.normalize(torch.randn(3, 6, 4, 5, generator=generator, dtype=torch.float64), dim=1)
    kind = torch.randint(0, 3, SHAPE, generator=generator)
    return embedding.requires_grad_(), kind == 1, kind == 2


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(sum(vector**2))


@pytest.mark.parametrize("seed", range(3))
def test_object_embedding(seed: int) -> None:
    embedding, positive, _ = make(seed)
    positive[1] = False
    vectors = [[embedding.detach()[b, :, y, x].numpy() for y, x in positive[b].nonzero()] for b in range(3)]
    own = {b: unit(np.mean(found, 0)) for b, found in enumerate(vectors) if found}
    shared = unit(np.mean(list(own.values()), 0))
    pulls = [1 - e @ own[b] + 0.5 * (1 - e @ shared) for b, found in enumerate(vectors) for e in found]
    assert object_embedding(embedding, positive).item() == pytest.approx(np.mean(pulls))


def test_prototypes_are_constants_to_the_gradient() -> None:
    embedding, positive, _ = make(0)
    object_embedding(embedding, positive, batch_weight=0.5).backward()
    sums = [embedding.detach()[b][:, positive[b]].sum(1) for b in range(3)]
    own = [F.normalize(each, dim=0) for each in sums]
    shared = F.normalize(torch.stack(own).sum(0), dim=0)
    for b in range(3):
        for y, x in positive[b].nonzero():
            torch.testing.assert_close(embedding.grad[b, :, y, x], -(own[b] + 0.5 * shared) / positive.sum())
    assert (embedding.grad.movedim(1, -1)[~positive] == 0).all()


def test_equal_embeddings_cost_nothing() -> None:
    embedding = F.normalize(torch.ones(2, 4, 3, 3), dim=1)
    assert object_embedding(embedding, torch.ones(2, 3, 3).bool()).item() == pytest.approx(0, abs=1e-6)


def contrast_by_hand(
    embedding: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, temperature: float
) -> float:
    anchors = []
    for b in range(len(embedding)):
        here, there = (embedding.detach()[b][:, chosen[b]].T.numpy() for chosen in (positive, negative))
        if len(here) < 2 or not len(there):
            continue
        for i, e in enumerate(here):
            against = sum(math.exp(e @ k / temperature) for k in there)
            alike = [math.exp(e @ other / temperature) for j, other in enumerate(here) if j != i]
            anchors.append(np.mean([-math.log(s / (s + against)) for s in alike]))
    return float(np.mean(anchors)) if anchors else 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive(seed: int, temperature: float) -> None:
    embedding, positive, negative = make(seed)
    if seed == 1:
        positive[0] = False
        positive[0, 0, 0] = True  # one positive: no pair
    if seed == 2:
        negative[2] = False
    wanted = contrast_by_hand(embedding, positive, negative, temperature)
    assert wanted > 0
    assert pixel_contrastive(embedding, positive, negative, temperature).item() == pytest.approx(wanted)


def test_contrastive_gradients() -> None:
    embedding, positive, negative = make(0)
    assert torch.autograd.gradcheck(lambda e: pixel_contrastive(e, positive, negative, 0.5), (embedding,))


def test_contrastive_of_opposite_vectors_does_not_overflow() -> None:
    embedding = torch.tensor([[1.0, 1.0, -1.0]]).view(1, 1, 1, 3).requires_grad_()
    positive = torch.tensor([[[True, True, False]]])
    good = pixel_contrastive(embedding, positive, ~positive, temperature=1e-3)
    bad = pixel_contrastive(-embedding * torch.tensor([1.0, -1.0, 1.0]), positive, ~positive, temperature=1e-3)
    assert good.item() == 0
    assert bad.item() == pytest.approx(1000, rel=0.01)
    assert torch.autograd.grad(bad, embedding)[0].isfinite().all()


def test_nothing_to_compare_is_zero_with_a_gradient_path() -> None:
    embedding, positive, negative = make(0)
    nothing = torch.zeros(SHAPE).bool()
    for value in (
        object_embedding(embedding, nothing),
        pixel_contrastive(embedding, nothing, negative),
        pixel_contrastive(embedding, positive, nothing),
        pixel_contrastive(embedding, nothing, nothing),
    ):
        assert value.item() == 0
        gradient = torch.autograd.grad(value, embedding)[0]
        assert (gradient == 0).all()


def test_no_more_pixels_than_asked_are_read() -> None:
    embedding, positive, negative = make(0)
    torch.manual_seed(0)
    pixel_contrastive(embedding, positive, negative, max_pixels=2).backward()
    read = (embedding.grad != 0).any(1)
    assert (read & positive).sum((1, 2)).tolist() == [2, 2, 2]
    assert (read & negative).sum((1, 2)).tolist() == [2, 2, 2]
    assert not (read & ~positive & ~negative).any()


def test_samples_are_chosen_pixels_without_repetition_and_all_alike() -> None:
    torch.manual_seed(0)
    chosen = torch.zeros(3, 20).bool()
    chosen[0, 3:15], chosen[1, 5] = True, True
    seen = torch.zeros(20)
    for _ in range(400):
        index, drawn = sample_pixels(chosen, 4)
        assert drawn.sum(1).tolist() == [4, 1, 0]
        assert index[1][drawn[1]].tolist() == [5]
        first = index[0][drawn[0]]
        assert chosen[0][first].all()
        assert len(set(first.tolist())) == 4
        seen[first] += 1
    assert (seen[3:15] / 400 - 4 / 12).abs().max() < 0.1
    assert sample_pixels(chosen, 100)[0].shape == (3, 20)


def test_samples_follow_the_generator_of_torch() -> None:
    chosen = torch.ones(2, 50).bool()
    torch.manual_seed(3)
    first = sample_pixels(chosen, 5)[0]
    assert not torch.equal(first, sample_pixels(chosen, 5)[0])
    torch.manual_seed(3)
    assert torch.equal(first, sample_pixels(chosen, 5)[0])
