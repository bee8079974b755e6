"""Gradients of the objectives with respect to what they share, and the means to replace them on the way back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from hsl.weighting.base import Weighting, add


class SharedGradients(Weighting):
    """A weighting that looks at the gradient of each objective with respect to the shared features.

    Each level of the features is handed to the decoder as a view of itself. The gradient of an objective with respect
    to the views crosses its heads and decoder only, not the encoder.
    """

    def __init__(self, weights: Any) -> None:
        super().__init__(weights)
        self._views: list[Tensor] | None = None
        self._scale: Tensor | float = 2.0**16  # what the gradients of float16 are multiplied with, see `_seed`

    def share(self, features: list[Tensor]) -> list[Tensor]:
        if not (self.training and torch.is_grad_enabled()):
            return features
        shared = [level.view_as(level) if level.requires_grad and level.numel() else level for level in features]
        self._views = [view for view, level in zip(shared, features, strict=True) if view is not level]
        return shared

    def _take_views(self) -> list[Tensor]:
        """The views of this step, once. None if the encoder is frozen: nothing is shared then that could learn."""
        if self._views is None:
            raise ValueError(
                "`weighting.share` should be called with the encoder's features before the weighting itself. "
                "Found no call in this step. Pass `share=weighting.share` to the network."
            )
        views, self._views = self._views, None
        return views

    def _seed(self, views: Sequence[Tensor]) -> Tensor | float:
        """What objectives are multiplied with before they are differentiated.

        Gradients in float16 fall below its smallest number; the gradient scaler's factor, as it arrived in the last
        backward pass, prevents that here as it does there.
        """
        return self._scale if any(view.dtype is torch.float16 for view in views) else 1.0

    def _watch_scale(self, total: Tensor) -> list[Tensor]:
        """A list that holds, once the backward pass has begun, the gradient that reached the total."""
        arrived: list[Tensor] = []

        def keep(gradient: Tensor) -> None:
            arrived[:] = [gradient]
            self._scale = gradient

        total.register_hook(keep)  # type: ignore[no-untyped-call]
        return arrived


def gradients(objective: Tensor, targets: Sequence[Tensor], seed: Tensor | float = 1.0) -> list[Tensor]:
    """Gradient of `objective` times `seed` with respect to each target; zeros where it has no influence.

    The graph is kept. Automatic casting is switched off: it would cast the operations of the backward pass.
    """
    if not objective.requires_grad:
        return [torch.zeros_like(target) for target in targets]
    with torch.autocast(objective.device.type, enabled=False):
        start = torch.ones_like(objective) * seed
        found = torch.autograd.grad(objective, targets, start, retain_graph=True, allow_unused=True)
    pairs = zip(found, targets, strict=True)
    return [torch.zeros_like(target) if gradient is None else gradient for gradient, target in pairs]


def combine_rows(rows: Sequence[Sequence[Tensor]], factors: Sequence[float]) -> list[Tensor]:
    """``sum_i factors[i] rows[i]``, at least in float32."""
    columns = zip(*rows, strict=True)
    pairs = (list(zip(column, factors, strict=True)) for column in columns)
    return [add([wide(row) * factor for row, factor in column]) for column in pairs]


def gramian(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Inner products ``(T, T)`` of T gradients that come in parts, at least in float32."""
    columns = zip(*rows, strict=True)
    matrices = (torch.stack([wide(row) for row in column]).flatten(1) for column in columns)
    with torch.autocast(rows[0][0].device.type, enabled=False):
        return add([matrix @ matrix.T for matrix in matrices])


def leaves(features: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that the features were made from, in the order of the graph: those of the encoder that learn."""
    found: list[Tensor] = []
    todo, seen = [_node(level) for level in features], set[Node]()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo += [child for child, _ in node.next_functions if child is not None]
    return found


def consumers(objectives: Sequence[Tensor], views: Sequence[Tensor]) -> dict[Node, tuple[int, list[int]]] | None:
    """The operations that read a view: node -> which objective it serves, and which of its inputs are views.

    None if one of them serves several objectives, as a common decoder or attention between the tasks does: what arrives
    there is a sum and cannot be told apart.
    """
    sources = {_node(view) for view in views}
    found: dict[Node, tuple[int, list[int]]] = {}
    for index, objective in enumerate(objectives):
        todo, seen = [objective.grad_fn] if objective.grad_fn is not None else [], set[Node]()
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            children = node.next_functions
            readers = [place for place, (child, _) in enumerate(children) if child in sources]
            if readers and found.setdefault(node, (index, readers))[0] != index:
                return None
            todo += [child for child, _ in children if child is not None and child not in sources]
    return found


def scale_inputs(node: Node, places: Sequence[int], factor: float, arrived: list[Tensor]) -> None:
    """Multiply what the node will hand to some of its inputs in the backward pass of the total.

    Until that has begun nothing has arrived, and gradients that others take of single objectives stay as they are.
    """

    def scaled(grad_inputs: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
        if not arrived:
            return grad_inputs
        return tuple(
            gradient * factor if place in places and gradient is not None else gradient
            for place, gradient in enumerate(grad_inputs)
        )

    node.register_hook(scaled)


def replace(view: Tensor, gradient: Tensor, arrived: list[Tensor], seed: Tensor | float) -> None:
    """Let the backward pass of the total carry `gradient`, times what reached it over `seed`, where the view stands.

    Until that has begun nothing has arrived, and gradients that others take of single objectives stay as they are.
    """

    def replaced(found: Tensor) -> Tensor:
        if not arrived:
            return found
        return (gradient * (arrived[0] / seed)).to(found.dtype)

    view.register_hook(replaced)  # type: ignore[no-untyped-call]


def _node(tensor: Tensor) -> Node:
    node = tensor.grad_fn
    if node is None:
        raise ValueError("A shared feature should be made by the encoder. Found a tensor without a history.")
    return node


def wide(tensor: Tensor) -> Tensor:
    """At least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
