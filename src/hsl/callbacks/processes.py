"""What several processes saw of a part, put together as one alone would have seen it."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")
K = TypeVar("K")
_NONE = object()


def gathered(own: Any) -> list[Any]:
    """What each process gives, by rank, in the first one; nothing in the others.

    It is pickled: of NCCL, each process should have chosen its device.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    found: list[Any] | None = [None] * world if rank == 0 else None
    dist.gather_object(own, found, dst=0)
    return found or []


def in_turn(shares: Sequence[Sequence[T]]) -> list[T]:
    """One of each share in turn: the order before it was dealt out, see `hsl.data.loading.loader.BatchOrder`.

    Example:
        >>> in_turn([["a", "d"], ["b", "e"], ["c"]])
        ['a', 'b', 'c', 'd', 'e']
    """
    return [one for row in zip_longest(*shares, fillvalue=_NONE) for one in row if one is not _NONE]  # type: ignore[misc]


def by_key(shares: Sequence[Mapping[K, T]]) -> dict[K, list[T]]:
    """The values of each key, of the shares that have it.

    Example:
        >>> by_key([{"a": 1, "b": 2}, {"a": 3}])
        {'a': [1, 3], 'b': [2]}
    """
    keys = dict.fromkeys(key for share in shares for key in share)
    return {key: [share[key] for share in shares if key in share] for key in keys}
