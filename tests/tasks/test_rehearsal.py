"""What a validation would log is known before there is one, and so is a step that batch normalisation refuses."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hsl.heads import Head, Problem
from hsl.losses.cross_entropy import CrossEntropy
from hsl.losses.image_loss import ImageCrossEntropy
from hsl.losses.segmentation_loss import SegmentationLoss
from hsl.metrics.pixels.pixelwise import Pixelwise
from hsl.tasks.rehearsal import logged_values, single_values_normalised
from hsl.tasks.scoring import Scoring

HEAD = "segmentation"


def dense_task(num_classes: int = 3) -> Any:
    head = Head(HEAD, "dense", [str(i) for i in range(num_classes)])
    ones = torch.ones(num_classes)
    loss = SegmentationLoss(
        {"ce": CrossEntropy()}, {"ce": 1.0}, class_weights=None, class_counts={HEAD: ones},
        presence_pixels={HEAD: ones}, head=HEAD, max_ratio=40.0,
    )  # fmt: skip
    scoring = Scoring({"pixels": partial(Pixelwise)}, Problem((head,), {}, {}))
    return SimpleNamespace(scoring=scoring, loss=loss, primary=())


def image_task(num_classes: int, several: bool) -> Any:
    head = Head("kind", "image", [str(i) for i in range(num_classes)], several)
    scoring = Scoring({}, Problem((head,), {}, {}))
    return SimpleNamespace(scoring=scoring, loss=SimpleNamespace(training_only=True), primary=())


def test_a_model_that_is_right_everywhere_has_the_best_value_of_each_name() -> None:
    values = logged_values(dense_task(), {HEAD: torch.tensor([5, 0, 7])}, {})
    assert values["val/miou"] == values["val/pixel_accuracy"] == values["val/boundary_f1"] == 1
    assert values["val/error_missed_interior"] == 0
    assert values["val/loss"] == values["val/loss/ce"] < 0.001
    assert values["val/nll"] < 0.001


def test_a_part_without_a_valid_pixel_has_no_score() -> None:
    values = logged_values(dense_task(), {HEAD: torch.zeros(3)}, {})
    assert math.isnan(values["val/miou"])
    assert values["val/loss"] == 0  # no reason to choose by it


def test_a_part_of_one_class_has_no_contour() -> None:
    values = logged_values(dense_task(), {HEAD: torch.tensor([5, 0, 0])}, {})
    assert values["val/miou"] == 1
    assert math.isnan(values["val/boundary_f1"])


@pytest.mark.parametrize(
    ("labels", "several", "nan"),
    [
        (torch.tensor([0, 1, 1, -1]), False, set()),
        (torch.tensor([1, 1, 1]), False, {"val/macro_auroc", "val/macro_average_precision"}),
        (torch.tensor([[1.0, 0.0], [0.0, torch.nan], [0.0, 1.0]]), True, set()),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0]]), True, {"val/macro_auroc", "val/macro_average_precision"}),
    ],
)
def test_labels_of_one_kind_have_no_curve(labels: Tensor, several: bool, nan: set[str]) -> None:
    values = logged_values(image_task(2, several), {}, {"kind": labels})
    assert {name for name, value in values.items() if math.isnan(value)} == nan
    assert values["val/accuracy"] == values["val/macro_f1"] == 1


def test_ten_thousand_labels_are_as_quick_as_two() -> None:
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]]).repeat(5000, 1)
    assert logged_values(image_task(2, several=True), {}, {"kind": labels})["val/accuracy"] == 1


def test_a_loss_that_does_not_fit_the_labels_is_refused() -> None:
    task = image_task(2, several=True)
    task.loss = ImageCrossEntropy(class_counts={"kind": torch.ones(2)}, presence_pixels={}, head="kind")
    with pytest.raises(ValueError, match="several classes per picture"):
        logged_values(task, {}, {"kind": torch.ones(3, 2)})


class Pooled(nn.Module):
    def __init__(self, norm: nn.Module, pool: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *([nn.AdaptiveAvgPool2d(1)] * pool), norm)

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


@pytest.mark.parametrize(
    ("network", "refused"),
    [
        (Pooled(nn.BatchNorm2d(4)), True),
        (Pooled(nn.BatchNorm2d(4), pool=False), False),
        (Pooled(nn.BatchNorm2d(4)).eval(), False),  # as a frozen module is
        (Pooled(nn.GroupNorm(2, 4)), False),
        (Pooled(nn.InstanceNorm2d(4)), True),
        (nn.Sequential(Pooled(nn.BatchNorm2d(4)), nn.Dropout(0.5)), True),
    ],
)
def test_a_single_value_per_channel_is_found_without_the_numbers(network: nn.Module, refused: bool) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    assert single_values_normalised(network, (8, 8)) is refused
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_has_no_meta_kernel_is_called_as_it_is() -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, image: Tensor) -> Tensor:
            if float(image.sum()) == 0:  # a number, which meta tensors have not
                return image
            return self.norm(image.mean((2, 3), keepdim=True))

    network = Asks()
    assert single_values_normalised(network, (4, 4))
    assert int(network.norm.num_batches_tracked) == 0
