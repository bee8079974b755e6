"""Several heads as one: probabilities of the global classes, in which models are scored alike; codes of channels."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from hsl.batch import Outputs

ROWS = 64


def fuse(outputs: Outputs, tables: Mapping[str, Tensor], members: Tensor, rows: int = ROWS) -> Tensor:
    r"""Log-probabilities of the global classes from the logits of all heads, as a product of experts.

    .. math:: \log \tilde p_s = \sum_t \log \mathrm{softmax}(z_t)_{c_t(s)} - \log n_s, \qquad
        p_g = \sum_{s \in g} \tilde p_s \Big/ \sum_s \tilde p_s

    with the logits ``z_t`` of head ``t``, the class ``c_t(s)`` that it has for source class ``s``, and the number
    ``n_s`` of source classes that no head tells apart from ``s``: they share one probability, where counting each in
    full would make a class likelier the more names it has. A flat model has one head with ``c(s) = s``; its result
    is its own softmax, summed over the members of each global class. Source: Hinton 2002, "Training Products of
    Experts by Minimizing Contrastive Divergence", equation 1.

    Args:
        outputs: logits ``(B, C_t, H, W)`` by head; heads without a table are left out.
        tables: head -> ``int64 (S,)``: its class of each source class.
        members: ``int64 (S,)``: the global class of each source class, from 0 without a gap.
        rows: rows of the picture that are worked on at once, which bounds the memory beside the result.

    Returns:
        ``float32 (B, G, H, W)``; like logits, for ``softmax`` of it is itself the probability.

    Raises:
        ValueError: two source classes of different global classes are not told apart by any head.

    Example:
        >>> # the products are 1 * 2 : 3 * 1 : 3 * 1
        >>> binary, kind = torch.tensor([1.0, 3.0]).log(), torch.tensor([2.0, 1.0, 1.0]).log()
        >>> outputs = {"binary": binary.reshape(1, 2, 1, 1), "kind": kind.reshape(1, 3, 1, 1)}
        >>> tables = {"binary": torch.tensor([0, 1, 1]), "kind": torch.tensor([0, 1, 2])}
        >>> [round(p, 3) for p in fuse(outputs, tables, torch.arange(3)).exp().flatten().tolist()]
        [0.25, 0.375, 0.375]
    """
    bands = fuse_bands(outputs, tables, members, rows)
    first = outputs[next(iter(tables))]
    fused = first.new_empty((first.shape[0], int(members.max()) + 1, *first.shape[2:]), dtype=torch.float32)
    for band, log_probabilities in bands:
        fused[:, :, band] = log_probabilities
    return fused


def fuse_bands(
    outputs: Outputs, tables: Mapping[str, Tensor], members: Tensor, rows: int = ROWS
) -> Iterator[tuple[slice, Tensor]]:
    """As `fuse`, band by band: the rows of each band, and their log-probabilities ``(B, G, rows, W)``."""
    columns, owner = _told_apart(tables, members)
    device = outputs[next(iter(tables))].device
    indices = {head: column.to(device) for head, column in columns.items()}
    merged = bool((owner != torch.arange(len(owner))).any())
    height = outputs[next(iter(tables))].shape[2]
    for top in range(0, height, rows):
        band = slice(top, min(height, top + rows))
        total = _product({head: outputs[head][:, :, band] for head in indices}, indices)
        yield band, _marginal(total, owner.to(device)) if merged else total


def readings(tables: Mapping[str, Tensor], members: Tensor) -> dict[str, Tensor]:
    """How each task reads the classes of a model whose one head is the global space.

    Args:
        tables: task -> ``int64 (S,)``: its class of each source class.
        members: ``int64 (S,)``: the global class of each source class, from 0 without a gap.

    Returns:
        Task -> ``int64 (G,)``: its class of each global class.

    Example:
        >>> readings({"damage": torch.tensor([0, 1, 1, 0])}, torch.tensor([0, 1, 2, 0]))
        {'damage': tensor([0, 1, 1])}
    """
    first = torch.stack([(members == index).nonzero()[0, 0] for index in range(int(members.max()) + 1)])
    return {task: table[first] for task, table in tables.items()}


def read_as(logits: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """What a model of one head says of a task: its predicted class as the task reads it, and the probabilities.

    The class of a pixel is that of the model's own map, so that the two never contradict each other; the task's
    probability of a class is the sum over the classes that it reads so. (Where many classes make up one, their sum may
    pass the probability of the predicted one.)

    Args:
        logits: ``(B, S, H, W)``.
        table: ``int64 (S,)``: the task's class of each class.

    Returns:
        Log-probabilities ``float32 (B, C, H, W)``, and classes ``int64 (B, H, W)``.

    Example:
        >>> logits = torch.tensor([0.4, 0.3, 0.3]).log().reshape(1, 3, 1, 1)
        >>> log_probabilities, classes = read_as(logits, torch.tensor([0, 1, 1]))
        >>> [round(p, 3) for p in log_probabilities.exp().flatten().tolist()], classes.item()
        ([0.4, 0.6], 0)
    """
    table = table.to(logits.device)
    return _marginal(logits.float().log_softmax(dim=1), table), table[logits.max(dim=1).indices]


def _told_apart(tables: Mapping[str, Tensor], members: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """For each set of source classes that the heads tell apart, by global class: the class of each head; its global."""
    signatures = torch.stack([*tables.values(), members]).cpu()
    distinct = torch.unique(signatures, dim=1)
    *columns, owner = distinct[:, distinct[-1].argsort(stable=True)]
    if torch.unique(signatures[:-1], dim=1).shape[1] < len(owner):
        raise ValueError(
            "`members` should put source classes that no head tells apart into one global class. "
            f"Found `members = {members.tolist()}` for the heads {list(tables)}."
        )
    return dict(zip(tables, columns, strict=True)), owner


def _product(outputs: Outputs, indices: Mapping[str, Tensor]) -> Tensor:
    parts = (outputs[head].float().log_softmax(dim=1).index_select(1, index) for head, index in indices.items())
    total = next(parts)
    for part in parts:
        total = total + part
    return total.log_softmax(dim=1)


def _marginal(log_probabilities: Tensor, owner: Tensor) -> Tensor:
    """Log of the sum over the members of each global class, in log space."""
    shape = log_probabilities.shape
    top = log_probabilities.amax(dim=1, keepdim=True)
    summed = log_probabilities.new_zeros((shape[0], int(owner.max()) + 1, *shape[2:]))
    summed = summed.index_add(1, owner, (log_probabilities - top).exp())
    return summed.clamp_min(torch.finfo(summed.dtype).tiny).log() + top


def channel_codes(outputs: Outputs, channels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The codes of `hsl.channels` of all heads, each by its own most probable class.

    Args:
        outputs: logits ``(B, 2, H, W)`` of each channel; class 1 is that it is there.
        channels: the heads, in the order of the bits.

    Returns:
        Codes ``uint8 (B, H, W)``, and the mean over the channels of the top probability ``float32 (B, H, W)``.

    Example:
        >>> sure = torch.tensor([-9.0, 9.0]).reshape(1, 2, 1, 1)
        >>> codes, confidence = channel_codes({"leaf": sure, "hole": -sure, "spot": sure}, ["leaf", "hole", "spot"])
        >>> codes.item(), round(confidence.item(), 3)
        (5, 1.0)
    """
    first = outputs[channels[0]]
    codes = torch.zeros((first.shape[0], *first.shape[2:]), dtype=torch.uint8, device=first.device)
    confidence = torch.zeros(codes.shape, dtype=torch.float32, device=first.device)
    for bit, channel in enumerate(channels):
        top, present = outputs[channel].float().softmax(dim=1).max(dim=1)
        codes |= present.to(torch.uint8) << bit
        confidence += top / len(channels)
    return codes, confidence
