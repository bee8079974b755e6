import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hsl.losses.eight_part.embedding_parts import object_embedding, pixel_contrastive, sample_pixels

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
