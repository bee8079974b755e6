"""All eight parts of the histology loss, forward and backward, beside a loop over the pictures of the same batch.

The loop is what one writes from the definitions: pictures one by one, boolean indexing, `conv2d` for Sobel,
`avg_pool2d` for the local mean, one matrix of similarities per picture. Values and gradients of both have to agree; for
that check the loop is given the pixels that ours has drawn.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from hsl.cli import conf_dir
from hsl.losses.eight_part.embedding_parts import sample_pixels
from hsl.losses.eight_part.loss import EightPartLoss
from hsl.losses.eight_part.weak_labels import resize_labels

BATCH, SIZE, WIDTH, STRIDE, ROUNDS, GOAL = 8, 256, 32, 4, 5, 2.0
TOLERANCE = 2e-5
Draw = list[tuple[Tensor, Tensor]]
SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def make_loss() -> EightPartLoss:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loss: EightPartLoss = instantiate(compose("train", ["loss=eight_part"]).loss)(
            class_counts={"segmentation": torch.tensor([9, 1])}
        )
    return loss


def make_batch(weak: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Discs of all sizes, a third of them annotated if weak; a few ignored pixels; logits that know something."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    mask, annotated = torch.zeros(2, BATCH, SIZE, SIZE, dtype=torch.int64)
    for picture in range(BATCH):
        for disc in range(30):
            y, x, radius = (torch.rand(3, generator=generator) * torch.tensor([SIZE, SIZE, 12])).tolist()
            inside = (rows - y) ** 2 + (columns - x) ** 2 < (radius + 3) ** 2
            mask[picture][inside], annotated[picture][inside] = 1, disc % 3 == 0
    target = (annotated if weak else mask).clone()
    target[:, :2] = 255
    small = SIZE // STRIDE
    noise = [torch.randn(BATCH, *shape, generator=generator) for shape in ((SIZE, SIZE), (WIDTH, small, small))]
    outputs = {
        "segmentation": (4 * (2 * mask - 1) + 2 * noise[0]).unsqueeze(1),
        "hv": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator),
        "reconstruction": torch.rand(BATCH, 3, SIZE, SIZE, generator=generator),
        "object_embedding": F.normalize(noise[1], dim=1),
        "pixel_embedding": F.normalize(noise[1] + 0.5 * resize_labels(mask, (small, small)).unsqueeze(1), dim=1),
    }
    batch: dict[str, Any] = {
        "masks": {"segmentation": target},
        "targets": {
            "hv": torch.rand(BATCH, SIZE, SIZE, generator=generator) * mask,
            "reconstruction": torch.rand(BATCH, 3, SIZE, SIZE, generator=generator),
        },
    }
    if weak:
        batch["unlabelled"] = {"segmentation": target == 0}
    return {name: output.requires_grad_() for name, output in outputs.items()}, batch


def loop(outputs: dict[str, Tensor], batch: dict[str, Any], draw: Draw | None = None) -> dict[str, Tensor]:
    """The definitions, picture by picture; ``draw`` names the pixels of InfoNCE, else they are drawn here."""
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, float] = {}

    def add(name: str, total: Tensor, count: float) -> None:
        sums.setdefault(name, []).append(total)
        counts[name] = counts.get(name, 0.0) + count

    prototypes: list[Tensor] = []
    embedded: list[Tensor] = []
    for b in range(BATCH):
        mask = batch["masks"]["segmentation"][b]
        valid, positive = mask != 255, mask == 1
        logits = outputs["segmentation"][b, 0]
        p = torch.sigmoid(logits)
        _segmentation(add, logits, p, mask, batch.get("unlabelled", {}).get("segmentation"), b)
        _edge(add, logits, mask)
        add(
            "hv",
            ((outputs["hv"][b, 0][positive] - batch["targets"]["hv"][b][positive]) ** 2).sum(),
            positive.sum().item(),
        )
        error = outputs["reconstruction"][b][:, valid] - batch["targets"]["reconstruction"][b][:, valid]
        add("reconstruction", (error**2).sum(), error.numel())
        for dim in (0, 1):
            pairs = valid.narrow(dim, 1, SIZE - 1) & valid.narrow(dim, 0, SIZE - 1)
            add("total_variation", p.diff(dim=dim)[pairs].abs().sum(), pairs.sum().item())
        window = F.avg_pool2d(torch.stack([p * valid, valid.float()]), 3, stride=1, padding=1)
        near = (window[0] / window[1].clamp_min(1e-9))[valid]
        add("small_hole", (p[valid] * (1 - near) + (1 - p[valid]) * near).sum(), valid.sum().item())
        vectors = outputs["object_embedding"][b].permute(1, 2, 0)[_smaller(positive)]
        if len(vectors):
            prototypes.append(F.normalize(vectors.mean(0), dim=0).detach())
            embedded.append(vectors)
            add("object_embedding", (1 - vectors @ prototypes[-1]).sum(), len(vectors))
        negative = _smaller((p.detach() < 0.1) & valid) & ~_smaller(positive)
        _contrast(add, outputs["pixel_embedding"][b], _smaller(positive), negative, draw[b] if draw else None)
    centre = F.normalize(torch.stack(prototypes).mean(0), dim=0)
    add("object_embedding", 0.5 * (1 - torch.cat(embedded) @ centre).sum(), 0)
    parts = {name: torch.stack(totals).sum() / counts[name] for name, totals in sums.items() if counts[name]}
    overlap, predicted, true = (parts.pop(f"dice/{name}") for name in ("overlap", "predicted", "true"))
    parts["segmentation"] = parts["segmentation"] + 1 - (2 * overlap + 1) / (predicted + true + 1)
    return parts


def _segmentation(add: Any, logits: Tensor, p: Tensor, mask: Tensor, unlabelled: Tensor | None, b: int) -> None:
    valid, target = mask != 255, (mask == 1).float()
    weight = valid.float()
    if unlabelled is not None:
        unknown = unlabelled[b] & valid
        weight[unknown] = 0.05 * (1 - target.sum() / valid.sum())
        high, low = unknown & (p.detach() > 0.8), unknown & (p.detach() < 0.1)
        weight[high | low], target[high] = 0.3, 1.0
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    add("segmentation", (weight * cross_entropy).sum(), weight.sum().item())
    add("dice/overlap", (weight * p * target).sum(), 1 / BATCH)
    add("dice/predicted", (weight * p).sum(), 1 / BATCH)
    add("dice/true", (weight * target).sum(), 1 / BATCH)


def _edge(add: Any, logits: Tensor, mask: Tensor) -> None:
    target = (mask == 1).float()
    padded = F.pad(target[None, None], (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(padded, torch.stack([SOBEL, SOBEL.T]).unsqueeze(1))[0]
    known = F.max_pool2d((mask == 255).float()[None], 3, stride=1, padding=1)[0] == 0
    chosen = (slopes.square().sum(0).sqrt() > 0) & known
    add(
        "edge", F.binary_cross_entropy_with_logits(logits[chosen], target[chosen], reduction="sum"), chosen.sum().item()
    )


def _contrast(
    add: Any, embedding: Tensor, positive: Tensor, negative: Tensor, draw: tuple[Tensor, Tensor] | None
) -> None:
    here, there = draw or (_some(positive), _some(negative))
    vectors = embedding.flatten(1).T
    if len(here) < 2 or not len(there):
        return
    alike = vectors[here] @ vectors[here].T / 0.1
    unlike = vectors[here] @ vectors[there].T / 0.1
    loss = F.softplus(unlike.logsumexp(1, keepdim=True) - alike)  # = -log(exp(s) / (exp(s) + sum exp)), stable
    others = ~torch.eye(len(here), dtype=torch.bool)
    add("pixel_contrastive", loss[others].sum() / (len(here) - 1), len(here))


def _some(mask: Tensor) -> Tensor:
    found = mask.flatten().nonzero().flatten()
    return found[torch.randperm(len(found))[:512]]


def _smaller(mask: Tensor) -> Tensor:
    return resize_labels(mask.unsqueeze(0), (SIZE // STRIDE, SIZE // STRIDE))[0]


def our_draw(outputs: dict[str, Tensor], batch: dict[str, Any]) -> Draw:
    """What ours draws after the same seed."""
    size = (SIZE // STRIDE, SIZE // STRIDE)
    mask = batch["masks"]["segmentation"]
    positive = resize_labels(mask == 1, size).flatten(1)
    low = (outputs["segmentation"][:, 0].detach().sigmoid() < 0.1) & (mask != 255)
    drawn = [sample_pixels(chosen, 512) for chosen in (positive, resize_labels(low, size).flatten(1) & ~positive)]
    return [(drawn[0][0][b][drawn[0][1][b]], drawn[1][0][b][drawn[1][1][b]]) for b in range(BATCH)]


def largest_difference(loss: EightPartLoss, outputs: dict[str, Tensor], batch: dict[str, Any]) -> float:
    """Of the values of the parts and of their gradients; these relative to their largest."""
    torch.manual_seed(0)
    draw = our_draw(outputs, batch)
    torch.manual_seed(0)
    ours, theirs = loss(outputs, batch), loop(outputs, batch, draw)
    if ours.keys() != theirs.keys():
        return math.inf
    worst = 0.0
    for part in ours:
        worst = max(worst, (ours[part] - theirs[part]).abs().item())
        pairs = [
            torch.autograd.grad(parts[part], list(outputs.values()), retain_graph=True, allow_unused=True)
            for parts in (ours, theirs)
        ]
        for a, b in zip(*pairs, strict=True):
            if (a is None) != (b is None):
                return math.inf
            if a is not None and b is not None:
                worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
    return worst


def seconds(
    compute: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Tensor]], data: Any, weights: Any
) -> float:
    outputs, batch = data
    for output in outputs.values():
        output.grad = None
    # of the processor where one thread runs, so that what other processes take does not count
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    parts = compute(outputs, batch)
    torch.stack([weights[name] * value for name, value in parts.items()]).sum().backward()
    return clock() - start


def run() -> list[dict[str, Any]]:
    before = torch.get_num_threads()
    loss, rows = make_loss(), []
    for kind in ("weak", "full"):
        data = make_batch(kind == "weak")
        difference = largest_difference(loss, *data)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            taken: dict[str, list[float]] = {"ours": [], "loop": []}
            for _ in range(ROUNDS):  # in turn, so that a slow minute of the machine hits both
                taken["ours"].append(seconds(loss, data, loss.weights))
                taken["loop"].append(seconds(loop, data, loss.weights))
            ours, theirs = min(taken["ours"]), min(taken["loop"])
            rows.append(
                {
                    "name": f"eight parts, forward and backward, {kind} labels, {threads} thread(s)",
                    "sizes": {
                        "batch": BATCH,
                        "pixels": SIZE,
                        "embedding": [WIDTH, SIZE // STRIDE],
                        "rounds": ROUNDS,
                        "threads": threads,
                        "largest_difference": difference,
                    },
                    "versions": {"torch": torch.__version__},
                    "ours": f"{1e3 * ours:.1f} ms",
                    "peer": f"{1e3 * theirs:.1f} ms (loop over the pictures)",
                    "ratio": round(theirs / ours, 2),
                    "goal": f">= {GOAL}",
                    "holds": theirs / ours >= GOAL and difference <= TOLERANCE,
                }
            )
    torch.set_num_threads(before)
    return rows
