"""A student's loss: its own labels, what its teachers say of each picture, and where they look."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsl.batch import ATTENTION, IGNORE_INDEX, Batch, Objectives, Outputs
from hsl.config.ranges import Fraction, NonNegativeFloat, PositiveFloat
from hsl.errors import ConfigError
from hsl.losses.functional import as_float, weighted_mean
from hsl.losses.protocols import Loss


class Distillation(nn.Module, Loss):
    """``(1 - alpha)`` times the loss of the labels, ``alpha`` times the distance to the teachers, head by head.

    For each head ``T^2 KL(teacher_T || student_T)`` (`distance_to_teacher`), and with ``attention`` above 0 how far the
    student looks elsewhere (`attention_transfer`). The total is formed by the weighting: the objectives of the labels
    keep their names and weigh ``(1 - alpha) w``; ``distillation_<head>`` weighs ``alpha w``, where w is the weight of
    the objective that is called like the head, else 1; ``attention`` weighs itself.

    With ``alpha = 0`` and ``attention = 0`` it is the loss of the labels: the control of a student. Source: Hinton et
    al. 2015, "Distilling the Knowledge in a Neural Network", section 2, which weighs the two as 1 and T^2 times a
    larger number; here they sum to 1.

    Args:
        labels: called with ``class_counts`` and ``presence_pixels``; the loss of the labels.
        class_counts: head -> counts in the training part of the fold.
        presence_pixels: head -> see `hsl.data.loading.sampling.presence`.
        teachers: where the targets lie that the data put into ``batch["teachers"]``; here only whether there are any.
        alpha: share of the teachers, in [0, 1].
        temperature: T, above 0; softens both.
        attention: weight of `attention_transfer`; 0: off, and no attention map is built.
        heads: those that are taught; ``None``: all.

    Attributes:
        weights: objective -> its weight in the total.
        required_heads: those of the labels, and the attention map where it is compared.
        training_only: teachers say nothing of validation pictures, so it is not validated; the control is.

    Raises:
        ConfigError: an argument is out of range, a head is unknown, or there are no teachers.
    """

    def __init__(
        self,
        labels: Callable[..., Loss],
        class_counts: Mapping[str, Tensor],
        presence_pixels: Mapping[str, Tensor],
        teachers: str | None = None,
        alpha: Fraction = 0.7,
        temperature: PositiveFloat = 4.0,
        attention: NonNegativeFloat = 0.0,
        heads: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        taught = list(class_counts) if heads is None else list(heads)
        _check(class_counts, taught, teachers, alpha, temperature, attention)
        self.labels = labels(class_counts=class_counts, presence_pixels=presence_pixels)
        self.temperature, self.attention = float(temperature), attention > 0
        self.taught = taught if alpha > 0 else []
        own = dict(self.labels.weights)
        self.weights = {name: (1 - alpha) * weight for name, weight in own.items()}
        self.weights |= {objective_of(head): alpha * own.get(head, 1.0) for head in self.taught}
        self.weights |= {ATTENTION: float(attention)} if self.attention else {}
        required = self.labels.required_heads
        self.required_heads = (*(required or ()), ATTENTION) if self.attention else required
        self.primary = self.labels.primary
        self.training_only = self.labels.training_only or bool(self.taught) or self.attention

    @property
    def parts(self) -> Mapping[str, Tensor]:
        """What the loss of the labels keeps of its last call."""
        return getattr(self.labels, "parts", {})

    def forward(self, outputs: Outputs, batch: Batch) -> Objectives:
        """Unweighted scalar per objective.

        Args:
            outputs: of every head; ``attention`` ``(B, 1, h, w)`` where it is compared.
            batch: as the loss of the labels reads it, and ``teachers[head]``: probabilities ``(B, C, H, W)`` of a dense
                head, ``(B, K)`` of an image head, ``attention`` ``(B, 1, H, W)``.

        Raises:
            ConfigError: there are no targets of a head that is taught.
            ValueError: a shape does not fit.
        """
        objectives = dict(self.labels(outputs, batch))
        with torch.autocast(next(iter(outputs.values())).device.type, enabled=False):
            for head in self.taught:
                objectives[objective_of(head)] = self._distance(outputs[head], _target(batch, head), head, batch)
            if self.attention:
                objectives[ATTENTION] = attention_transfer(outputs[ATTENTION], _target(batch, ATTENTION))
        return objectives

    def _distance(self, logits: Tensor, target: Tensor, head: str, batch: Batch) -> Tensor:
        if logits.shape != target.shape:
            raise ValueError(
                f"`batch['teachers'][{head!r}]` should have the shape of the logits, {tuple(logits.shape)}. "
                f"Found {tuple(target.shape)}."
            )
        masks, labels = batch.get("masks", {}), batch.get("labels", {})
        if head in labels:
            several = labels[head].shape == logits.shape
            return distance_to_teacher(logits, target, self.temperature, several=several).mean()
        distances = distance_to_teacher(logits, target, self.temperature)
        return weighted_mean(distances, (masks[head] != IGNORE_INDEX).to(distances.dtype))


def objective_of(head: str) -> str:
    """What the distance of a head to its teachers is called."""
    return f"distillation_{head}"


def distance_to_teacher(logits: Tensor, probabilities: Tensor, temperature: float, *, several: bool = False) -> Tensor:
    """``T^2 KL(q || p)`` of softened teachers q and student p; 0 where both agree.

    ``q_c = t_c^(1/T) / sum_k t_k^(1/T)`` from the teachers' probabilities t, which is their softmax at temperature T
    where t is a softmax, and ``p = softmax(z / T)``. Of several classes each is a pair, present or not, and the
    distance is the mean over classes. The factor keeps the size of the gradient when T changes. Source: Hinton et al.
    2015, "Distilling the Knowledge in a Neural Network", equation 1 and section 2.1.

    Args:
        logits: z ``(B, C, ...)``.
        probabilities: t ``(B, C, ...)``, in [0, 1].
        temperature: T, above 0.
        several: whether each class is present by itself.

    Returns:
        ``(B, ...)``, at least 0 but for rounding.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> round(distance_to_teacher(student, teacher, 1.0).item(), 4)  # log 2
        0.6931
    """
    logits, probabilities = as_float(logits) / temperature, as_float(probabilities)
    if several:
        pair = torch.stack([logits, torch.zeros_like(logits)], dim=1)
        truth = torch.stack([probabilities, 1 - probabilities], dim=1)
        return temperature**2 * _divergence(pair, truth, temperature).mean(dim=1)
    return temperature**2 * _divergence(logits, probabilities, temperature)


def _divergence(logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    softened = probabilities.pow(1 / temperature)
    softened = softened / softened.sum(dim=1, keepdim=True).clamp_min(torch.finfo(softened.dtype).tiny)
    return (torch.xlogy(softened, softened) - softened * F.log_softmax(logits, dim=1)).sum(dim=1)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of two attention maps, the mean over pictures of ``|| s / |s| - t / |t| ||_2``; in [0, sqrt 2].

    Each map is the mean of the squared activations of a level over its channels, so levels of unlike width and size
    can be compared: the teacher's is averaged over the student's grid. Source: Zagoruyko & Komodakis 2017, "Paying
    More Attention to Attention", equation 2, for the deepest level, with p = 2; their factor beta / 2 is the weight.

    Args:
        student: ``(B, 1, h, w)``, at least 0.
        teacher: ``(B, 1, H, W)``, at least 0, of any scale.

    Returns:
        A scalar.

    Example:
        >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
        >>> round(attention_transfer(left, right).item(), 4), attention_transfer(left, 2 * left).item()
        (1.4142, 0.0)
    """
    height, width = student.shape[2:]
    aimed = F.adaptive_avg_pool2d(as_float(teacher), (height, width))
    found, wanted = (F.normalize(one.flatten(1), dim=1) for one in (as_float(student), aimed))
    distances: Tensor = torch.linalg.vector_norm(found - wanted, dim=1)
    return distances.mean()


def _target(batch: Batch, head: str) -> Tensor:
    teachers = batch.get("teachers", {})
    if head not in teachers:
        off = "`loss.attention=0`" if head == ATTENTION else "`loss.heads`"
        raise ConfigError(
            f"`data.teachers` should hold targets of `{head}`. Found those of {sorted(teachers)}. "
            f"Choose other targets, or leave it out with {off}."
        )
    return teachers[head]


def _check(
    class_counts: Mapping[str, Tensor],
    taught: Sequence[str],
    teachers: str | None,
    alpha: float,
    temperature: float,
    attention: float,
) -> None:
    findings = []
    if not 0 <= alpha <= 1 or not 0 < temperature < math.inf or not 0 <= attention < math.inf:
        findings.append(
            "`loss.alpha` should be in [0, 1], `loss.temperature` above 0 and `loss.attention` at least 0. "
            f"Found {alpha}, {temperature} and {attention}."
        )
    if unknown := sorted(set(taught) - set(class_counts)) or (not taught and ["none"]):
        findings.append(f"`loss.heads` should be null or name heads of {sorted(class_counts)}. Found {unknown}.")
    if attention > 0 and ATTENTION in class_counts:
        findings.append(f"No head should be called `{ATTENTION}`: it is where the encoder looks. Rename it.")
    if teachers is None and (alpha > 0 or attention > 0):
        findings.append(
            "`data.teachers` should be a folder of targets. Found none. `loss.alpha=0 loss.attention=0` is the same "
            "student without teachers."
        )
    if findings:
        raise ConfigError(" ".join(findings))
