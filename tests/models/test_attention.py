import math

import pytest
import torch
from torch import nn

from hsl.errors import ConfigError
from hsl.models.multitask_decoders import TaskAttention, pool


def made(channels: int = 8, context: tuple[int, ...] = (8, 4), num_heads: int = 2) -> TaskAttention:
    torch.manual_seed(0)
    return TaskAttention(channels, context, num_heads=num_heads)


def test_same_numbers_as_a_loop_over_heads_and_queries() -> None:
    module = made()
    own = torch.rand(2, 8, 6, 4)
    others = [torch.rand(2, 8, 3, 2), torch.rand(2, 4, 3, 2)]
    pooled = pool(own, 2)
    expected = torch.empty(2, 6, 8)
    gates = torch.empty(2, 6, 8)
    for b in range(2):
        tokens = pooled[b].flatten(1).T
        query = module.query(tokens)
        rows = [make(other[b].flatten(1).T) for make, other in zip(module.context, others, strict=True)]
        keys, values = torch.cat([row[:, :8] for row in rows]), torch.cat([row[:, 8:] for row in rows])
        for n in range(6):
            parts = []
            for head in (slice(0, 4), slice(4, 8)):
                scores = torch.stack([query[n, head] @ key[head] / math.sqrt(4) for key in keys])
                parts.append((scores.softmax(0)[:, None] * values[:, head]).sum(0))
            expected[b, n] = module.project(torch.cat(parts))
            gates[b, n] = torch.sigmoid(module.gate(torch.cat([tokens[n], expected[b, n]])))
    enlarge = nn.Upsample((6, 4), mode="bilinear")
    gate = enlarge(gates.transpose(1, 2).reshape(2, 8, 3, 2))
    part = enlarge((gates * expected).transpose(1, 2).reshape(2, 8, 3, 2))
    torch.testing.assert_close(module(own, pooled, others), own * (1 - gate) + part)


def test_a_closed_gate_leaves_the_task_alone_and_an_open_one_replaces_it() -> None:
    module, own = made(), torch.rand(1, 8, 4, 4)
    others = [torch.rand(1, 8, 2, 2), torch.rand(1, 4, 2, 2)]
    nn.init.zeros_(module.gate.weight)
    nn.init.constant_(module.gate.bias, -100)
    torch.testing.assert_close(module(own, pool(own, 2), others), own)
    nn.init.constant_(module.gate.bias, 100)
    opened = module(own, pool(own, 2), others)
    assert torch.equal(opened, module(own + 1, pool(own, 2), others))


def test_every_other_task_is_looked_at_and_every_parameter_reached() -> None:
    module = made()
    own = torch.rand(2, 8, 4, 4, requires_grad=True)
    others = [torch.rand(2, 8, 2, 2, requires_grad=True), torch.rand(2, 4, 2, 2, requires_grad=True)]
    module(own, pool(own, 2), others).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in (own, *others))
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_order_of_the_tokens_of_another_task_is_of_no_matter() -> None:
    module, own = made(), torch.rand(1, 8, 4, 4)
    first, second = torch.rand(1, 8, 2, 2), torch.rand(1, 4, 2, 2)
    turned = module(own, pool(own, 2), [first.flip(-1), second.flip(-2)])
    torch.testing.assert_close(module(own, pool(own, 2), [first, second]), turned)


def test_tokens_at_the_border_are_means_of_what_is_there() -> None:
    features = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert pool(features, 2).flatten().tolist() == [3.0, 5.0, 6.5, 10.5, 12.5, 14.0]
    assert torch.equal(pool(features, 1), features)


@pytest.mark.parametrize("num_heads", [0, 3])
def test_heads_that_do_not_divide_the_channels(num_heads: int) -> None:
    with pytest.raises(ConfigError, match=rf"divide the 8 channels.*num_heads = {num_heads}"):
        made(num_heads=num_heads)
