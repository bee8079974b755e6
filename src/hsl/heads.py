"""What each output of a network is, said once where it is made: nobody guesses it from the shape of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the processes that only read files do without torch
    from torch import Tensor

    from hsl.batch import Outputs

Kind = Literal["dense", "image", "map", "embedding"]


@dataclass(frozen=True)
class Head:
    """A named output of a network.

    Attributes:
        name: its key in ``outputs``, ``batch["masks"]``, ``batch["labels"]`` and the log names.
        kind: ``dense``: class logits of every pixel, ``(B, C, H, W)``. ``image``: class logits of the whole image,
            ``(B, K)``. ``map``: numbers of every pixel, ``(B, N, H, W)``. ``embedding``: a vector of every cell of a
            coarser grid, ``(B, D, h, w)``.
        classes: their names, in the order of the indices; a map and an embedding have none.
        several: whether several classes may be present at once, in an image or, of overlapping channels, in a pixel.

    Example:
        >>> Head("classification", "image", ("rust", "blight"), several=True).several
        True
    """

    name: str
    kind: Kind
    classes: Sequence[str] = ()
    several: bool = False


@dataclass(frozen=True, eq=False)
class Problem:
    """The heads of a task, and how often their classes occur.

    Attributes:
        heads: all that are scored: those of the network, the tasks of `readings`, and the dense head in which models
            with different heads are scored alike where it is no head of the network.
        class_counts: pixels (image head: images) per class of every head of the network, over the training part.
        presence_pixels: the most a class could have had of them; see `hsl.data.loading.sampling.presence`.
        fuse: makes the logits of that shared head from those of the others; ``None``: there is nothing to fuse.
        readings: task -> ``int64 (S,)``: how it reads the classes of the one dense head, on which it is scored too;
            see `hsl.inference.global_space.read_as`.
    """

    heads: tuple[Head, ...]
    class_counts: Mapping[str, Tensor]
    presence_pixels: Mapping[str, Tensor]
    fuse: Callable[[Outputs], Tensor] | None = None
    readings: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def learned(self) -> tuple[Head, ...]:
        """The heads of the network that give classes, in the order of the counts."""
        known = {head.name: head for head in self.heads}
        return tuple(known[name] for name in self.class_counts)

    @property
    def scored_head(self) -> Head | None:
        """The dense head whose scores are logged without its name; ``None`` of a classifier."""
        dense = of_kind(self.heads, "dense")
        shared = (head for head in dense if head.name not in {*self.class_counts, *self.readings})
        return next(shared, next(iter(of_kind(self.learned, "dense")), None))

    @property
    def channels(self) -> tuple[str, ...]:
        """The dense heads in the order of the bits, where a pixel may show several of them; else none.

        The head in which all are scored then has no outputs of its own.
        """
        scored = self.scored_head
        dense = of_kind(self.learned, "dense") if scored is not None and scored.several else ()
        return tuple(head.name for head in dense)


def of_kind(heads: Iterable[Head], kind: Kind) -> tuple[Head, ...]:
    """The heads of one kind, in their order."""
    return tuple(head for head in heads if head.kind == kind)
