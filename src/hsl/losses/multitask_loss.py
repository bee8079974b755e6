"""The loss of several dense heads: one objective for each task, and one for what they say together."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from hsl.batch import IGNORE_INDEX, Batch, Objectives, Outputs
from hsl.config.ranges import AtLeastOne, Fraction, FractionBelowOne, NonNegativeFloat
from hsl.errors import ConfigError
from hsl.losses import functional
from hsl.losses.class_weights import Method, weigh_classes
from hsl.losses.protocols import Loss, Term

CONSISTENCY = "consistency"
OVERRIDES = ("pixel", "region", "hybrid_alpha", "class_weights")


class MultitaskLoss(nn.Module, Loss):
    """For each task ``alpha * pixel + (1 - alpha) * region``; the weighting makes the total.

    A batch without a label of a task (all 255) gives 0 for it, which still has a gradient path.

    Args:
        pixel: the term that counts pixel by pixel: focal loss or cross-entropy.
        region: the term that counts overlap: soft Dice.
        hybrid_alpha: share of ``pixel``, in [0, 1].
        auxiliary_weight: weight of the objective of a task that is not primary, for the weighting; 1 for the primary.
        primary: names of the primary tasks, or ``all``.
        overrides: task -> what is different for it: ``pixel``, ``region``, ``hybrid_alpha``, ``class_weights``.
        implications: pairs of tasks; a pixel that is no background of the first is none of the second. They make
            the objective ``consistency``, see `consistency`.
        consistency_weight: of that objective.
        class_counts: task -> ``int64 (C,)`` valid pixels in the training part of the fold.
        class_weights: how to weigh the classes of each task, see ``class_weights.weigh_classes``; or ``None``.
        max_ratio: largest class weight over the smallest.
        beta: of ``effective_number``.
        presence_pixels: task -> ``int64 (C,)``, for ``median_frequency`` only.

    Attributes:
        weights: objective -> its weight in the total, for the weighting.
        primary: names of the primary tasks.
        parts: ``<task>/pixel`` and ``<task>/region`` of the last call, without gradient.

    Raises:
        ConfigError: a name is no task, a number is out of its range, or class weights are asked for that no term
            takes.
    """

    def __init__(
        self,
        pixel: nn.Module,
        region: nn.Module,
        class_counts: Mapping[str, Tensor],
        hybrid_alpha: Fraction = 0.5,
        auxiliary_weight: NonNegativeFloat = 0.4,
        primary: Sequence[str] | Literal["all"] = "all",
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        implications: Sequence[Sequence[str]] = (),
        consistency_weight: NonNegativeFloat = 0.1,
        class_weights: Method | None = "inverse_sqrt",
        max_ratio: AtLeastOne = 40.0,
        beta: FractionBelowOne = 0.9999,
        presence_pixels: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        tasks = tuple(class_counts)
        chosen = tasks if primary == "all" else tuple(primary)
        self.primary = chosen
        special = dict(overrides or {})
        self.implications = [tuple(pair) for pair in implications]
        _check_names(tasks, chosen, special, self.implications)
        shared = dict(zip(OVERRIDES, (pixel, region, hybrid_alpha, class_weights), strict=True))
        settings = {task: shared | dict(special.get(task, {})) for task in tasks}
        self.alphas = {task: _fraction(task, setting["hybrid_alpha"]) for task, setting in settings.items()}
        self.pixel = nn.ModuleDict({task: setting["pixel"] for task, setting in settings.items()})
        self.region = nn.ModuleDict({task: setting["region"] for task, setting in settings.items()})
        for task, setting in settings.items():
            made = None
            if setting["class_weights"] is not None:
                self._check_takers(task)
                pixels = None if presence_pixels is None else presence_pixels[task]
                made = weigh_classes(
                    class_counts[task],
                    setting["class_weights"],
                    max_ratio=max_ratio,
                    beta=beta,
                    presence_pixels=pixels,
                    name=f"Of task `{task}`, classes",
                )
            # Derived from config and data, so not part of a checkpoint.
            self.register_buffer(f"class_weights_{task}", made, persistent=False)
        self.weights = {task: 1.0 if task in chosen else float(auxiliary_weight) for task in tasks}
        if self.implications:
            self.weights[CONSISTENCY] = float(consistency_weight)
        self.parts: dict[str, Tensor] = {}

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        """Unweighted scalar per task, and ``consistency`` if implications are declared.

        Args:
            outputs: holds ``outputs[task]``, logits ``(B, C, H, W)``.
            batch: holds ``batch["masks"][task]``, ``int64 (B, H, W)``.

        Raises:
            ValueError: shapes or dtypes do not fit.
        """
        masks = batch["masks"]
        objectives: Objectives = {}
        self.parts = {}
        with torch.autocast(next(iter(outputs.values())).device.type, enabled=False):
            for task, alpha in self.alphas.items():
                weights = getattr(self, f"class_weights_{task}")
                values = {
                    name: term(outputs[task], masks[task], weights if term.takes_class_weights else None)
                    for name, term in self._terms(task).items()
                }
                objectives[task] = alpha * values["pixel"] + (1 - alpha) * values["region"]
                self.parts |= {f"{task}/{name}": value.detach() for name, value in values.items()}
            if self.implications:
                pairs = (
                    consistency(outputs[first], outputs[second], masks[first], masks[second])
                    for first, second in self.implications
                )
                objectives[CONSISTENCY] = torch.stack(list(pairs)).sum()
        return objectives

    def _terms(self, task: str) -> dict[str, Term]:
        return {"pixel": cast(Term, self.pixel[task]), "region": cast(Term, self.region[task])}

    def _check_takers(self, task: str) -> None:
        unweighted = [name for name, term in self._terms(task).items() if not term.takes_class_weights]
        if unweighted:
            raise ConfigError(
                f"Both terms of task `{task}` should take class weights. Found none for {unweighted}. "
                f"Set `loss.class_weights=null`, or `class_weights: null` in `loss.overrides.{task}`."
            )


def consistency(first: Tensor, second: Tensor, first_target: Tensor, second_target: Tensor) -> Tensor:
    """How much a model breaks "what is no background of the first task is none of the second".

    The mean of ``max(0, p_A - p_B)`` over the pixels that are valid in both, with ``p = 1 - p(background)``. 0 where
    the probabilities obey, at most 1. Without such a pixel it is 0 with a gradient path.

    Args:
        first: logits of task A ``(B, C, H, W)``.
        second: logits of task B ``(B, D, H, W)``.
        first_target: ``int64 (B, H, W)``.
        second_target: ``int64 (B, H, W)``.

    Returns:
        A scalar.

    Example:
        >>> half, none = torch.zeros(1, 2, 1, 1), torch.tensor([[[[50.0]], [[0.0]]]])  # p_A = 1/2, p_B = 0
        >>> target = torch.zeros(1, 1, 1, dtype=torch.int64)
        >>> consistency(half, none, target, target).item(), consistency(none, half, target, target).item()
        (0.5, 0.0)
    """
    functional.check_shapes(first, first_target)
    functional.check_shapes(second, second_target)
    background_a, background_b = (functional.as_float(each).softmax(dim=1)[:, 0] for each in (first, second))
    valid = (first_target != IGNORE_INDEX) & (second_target != IGNORE_INDEX)
    return functional.weighted_mean(torch.relu(background_b - background_a), valid.to(background_a.dtype))


def _check_names(
    tasks: Sequence[str],
    primary: Sequence[str],
    overrides: Mapping[str, Mapping[str, Any]],
    implications: Sequence[tuple[str, ...]],
) -> None:
    findings = []
    if CONSISTENCY in tasks:
        findings.append(
            f"No task should be called `{CONSISTENCY}`: it is the objective of the implications. Rename it."
        )
    if not primary:
        findings.append("`loss.primary` should be all, or name at least one task. Found none.")
    named = {
        "primary": primary,
        "overrides": overrides,
        "implications": [name for pair in implications for name in pair],
    }
    for key, names in named.items():
        unknown = sorted(set(names) - set(tasks))
        if unknown:
            findings.append(f"`loss.{key}` should name tasks of {list(tasks)}. Found {unknown}.")
    for pair in implications:
        if len(pair) != 2 or pair[0] == pair[1]:
            findings.append(f"`loss.implications` should be pairs of different tasks. Found {list(pair)}.")
    for task, override in overrides.items():
        unknown = sorted(set(override) - set(OVERRIDES))
        if unknown:
            findings.append(f"`loss.overrides.{task}` should be among {list(OVERRIDES)}. Found {unknown}.")
    if findings:
        raise ConfigError(" ".join(findings))


def _fraction(task: str, alpha: float) -> float:
    if not 0 <= alpha <= 1:
        raise ConfigError(f"`hybrid_alpha` of task `{task}` should be in [0, 1]. Found `hybrid_alpha = {alpha}`.")
    return float(alpha)
