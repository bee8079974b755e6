"""Whole pictures at once, and several heads as one."""

import itertools
import math

import numpy as np
import pytest
import torch
from tests.inference._inputs import Answers
from torch import Tensor
from torch.nn import functional as F

from hsl.batch import Outputs
from hsl.errors import ConfigError
from hsl.inference.global_space import channel_codes, fuse, fuse_bands, read_as, readings
from hsl.inference.predictor import Predictor, Whole, to_source_size
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.tta import TestTimeAugmentation


def resized(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)


def test_the_same_size_is_the_same_object() -> None:
    logits = torch.randn(2, 3, 4, 6)
    assert to_source_size(logits, torch.tensor([[4, 6], [4, 6]])) is logits


def test_by_hand() -> None:
    """Half-pixel centres: 0 and 4 become 0, a quarter, three quarters, 4."""
    out = to_source_size(torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[1, 4]]))
    assert out.tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]


def test_one_size_for_all() -> None:
    logits = torch.randn(2, 3, 4, 4)
    out = to_source_size(logits, torch.tensor([[7, 9], [7, 9]]))
    assert out.shape == (2, 3, 7, 9)
    torch.testing.assert_close(out, resized(logits, 7, 9), rtol=0, atol=0)


@pytest.mark.parametrize("sizes", [[(3, 8), (5, 2)], [(4, 4), (6, 6)], [(4, 4), (2, 1), (9, 3)]])
def test_mixed_sizes_are_each_picture_s_own_with_zeros_around(sizes: list[tuple[int, int]]) -> None:
    logits = torch.randn(len(sizes), 3, 4, 4) + 10  # nowhere 0
    out = to_source_size(logits, torch.tensor(sizes))
    assert out.shape == (len(sizes), 3, max(h for h, _ in sizes), max(w for _, w in sizes))
    for i, (height, width) in enumerate(sizes):
        torch.testing.assert_close(out[i, :, :height, :width], resized(logits[i : i + 1], height, width)[0])
        assert (out[i, :, height:] == 0).all()
        assert (out[i, :, :, width:] == 0).all()


def test_type_and_gradient_are_kept() -> None:
    logits = torch.ones(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    out = to_source_size(logits, torch.tensor([[4, 4], [2, 2]]))
    assert out.dtype == torch.float64
    out.sum().backward()
    assert logits.grad is not None
    assert logits.grad.sum(dim=(1, 2, 3)).tolist() == [16.0, 4.0]  # one per source pixel


class Echo(Answers):
    """Answers with its input and remembers what it saw."""

    def __init__(self):
        super().__init__(dense="dense", image="image")

    def forward(self, images):
        self.seen = images
        return {"dense": images, "image": images.mean((2, 3))}


@pytest.mark.parametrize(("height", "width"), [(64, 32), (33, 31), (70, 5), (3, 2), (1, 1), (1, 40)])
def test_pads_like_numpy_reflect_and_crops_back(height, width):
    images = torch.randn(2, 3, height, width)
    network = Echo()
    outputs = Whole(stride=32)(network, images)

    down, right = -height % 32, -width % 32
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode="reflect")
    assert network.seen.shape[-2] % 32 == network.seen.shape[-1] % 32 == 0
    np.testing.assert_array_equal(network.seen.numpy(), expected)
    torch.testing.assert_close(outputs["dense"], images, rtol=0, atol=0)
    assert outputs["image"].shape == (2, 3)


def test_reflection_by_hand():
    network = Echo()
    Whole(stride=8)(network, torch.tensor([1.0, 2.0, 3.0]).expand(1, 3, 1, 3))
    assert network.seen[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert network.seen.shape == (1, 3, 8, 8)


def test_a_fitting_picture_is_not_copied():
    network, images = Echo(), torch.randn(1, 3, 64, 32)
    Whole(stride=32)(network, images)
    assert network.seen is images


def test_gradient_passes():
    images = torch.randn(1, 3, 5, 7, requires_grad=True)
    Whole(stride=4)(Echo(), images)["dense"].sum().backward()
    torch.testing.assert_close(images.grad, torch.ones_like(images))


def test_a_head_at_another_size_is_an_error_not_a_silent_crop():
    class Quarter(Answers):
        def forward(self, images):
            return {"edges": images[..., ::4, ::4]}

    with pytest.raises(ValueError, match=r"Head `edges` .*\(32, 64\).*Found \(8, 16\)"):
        Whole(stride=32)(Quarter(edges="dense"), torch.zeros(1, 3, 20, 50))


def test_stride_below_one():
    with pytest.raises(ConfigError, match=r"`stride` should be at least 1. Found `stride = 0`"):
        Whole(stride=0)


def test_a_network_with_larger_windows_gets_them_filled():
    network = Echo()
    network.stride = 24
    outputs = Whole(stride=16)(network, torch.randn(1, 3, 50, 20))
    assert network.seen.shape[-2:] == (96, 48)
    assert outputs["dense"].shape[-2:] == (50, 20)


# Several heads as one; what two channels show at one pixel comes through every predictor.


# six source classes; `damage` and `kind` do not tell 2 from 3, nor 0 from 5
TABLES = {"damage": torch.tensor([0, 1, 1, 1, 0, 0]), "kind": torch.tensor([0, 2, 0, 0, 1, 0])}
MEMBERS = torch.tensor([0, 1, 2, 2, 3, 0])
CHANNELS = ("leaf", "symptom", "margin")
WHOLE = Whole(stride=1)
WINDOWS = SlidingWindow(window=16, stride=8, windows_per_batch=3, stitch_device="cpu")


def outputs(*sizes: tuple[str, int], shape: tuple[int, int] = (5, 3)) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    return {head: 3 * torch.randn(2, number, *shape, generator=generator) for head, number in sizes}


def brute_force(given: Outputs, tables: dict[str, torch.Tensor], members: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel over all source classes, in plain Python."""
    first = next(iter(given.values()))
    batch, _, height, width = first.shape
    number = int(members.max()) + 1
    result = torch.empty(batch, number, height, width)
    alike = [
        sum(all(t[s] == t[other] for t in tables.values()) for other in range(len(members)))
        for s in range(len(members))
    ]
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                products = []
                for s in range(len(members)):
                    product = 1.0 / alike[s]
                    for head, table in tables.items():
                        values = [math.exp(v) for v in given[head][b, :, y, x].tolist()]
                        product *= values[int(table[s])] / sum(values)
                    products.append(product)
                for g in range(number):
                    mass = sum(p for p, m in zip(products, members.tolist(), strict=True) if m == g)
                    result[b, g, y, x] = math.log(mass / sum(products))
    return result


def test_same_numbers_as_a_loop_over_pixels() -> None:
    given = outputs(("damage", 2), ("kind", 3))
    fused = fuse(given, TABLES, MEMBERS)
    torch.testing.assert_close(fused, brute_force(given, TABLES, MEMBERS))
    torch.testing.assert_close(fused.exp().sum(1), torch.ones(2, 5, 3))
    torch.testing.assert_close(fused.softmax(1), fused.exp())


def test_heads_that_tell_more_apart_than_the_global_space_has() -> None:
    given = outputs(("damage", 2), ("kind", 3))
    coarser = torch.tensor([0, 1, 1, 1, 2, 0])
    torch.testing.assert_close(fuse(given, TABLES, coarser), brute_force(given, TABLES, coarser))


def test_a_flat_model_is_its_own_softmax_marginalised() -> None:
    given = outputs(("segmentation", 6))
    table = {"segmentation": torch.arange(6)}
    probabilities = given["segmentation"].softmax(1)
    torch.testing.assert_close(fuse(given, table, torch.arange(6)).exp(), probabilities)
    expected = torch.stack([probabilities[:, g == MEMBERS].sum(1) for g in range(4)], dim=1)
    torch.testing.assert_close(fuse(given, table, MEMBERS).exp(), expected)


def test_one_head_keeps_its_own_decision_however_many_classes_it_lumps_together() -> None:
    given = outputs(("damage", 2))
    table = {"damage": torch.tensor([0, 1, 1, 1, 1, 1])}
    fused = fuse(given, table, torch.tensor([0, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(fused, given["damage"].log_softmax(1))


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_bands_are_the_whole(rows: int) -> None:
    given = outputs(("damage", 2), ("kind", 3))
    whole = fuse(given, TABLES, MEMBERS)
    assert torch.equal(fuse(given, TABLES, MEMBERS, rows), whole)
    bands = list(fuse_bands(given, TABLES, MEMBERS, rows))
    assert len(bands) == math.ceil(5 / rows)
    assert torch.equal(torch.cat([each for _, each in bands], dim=2), whole)
    assert [band.start for band, _ in bands] == list(range(0, 5, rows))


def test_probabilities_too_small_for_a_float_stay_apart() -> None:
    given = {"a": torch.tensor([0.0, -300.0]).reshape(1, 2, 1, 1), "b": torch.tensor([0.0, -300.0]).reshape(1, 2, 1, 1)}
    tables = {"a": torch.tensor([0, 0, 1, 1]), "b": torch.tensor([0, 1, 0, 1])}
    torch.testing.assert_close(fuse(given, tables, torch.arange(4)).flatten(), -torch.tensor([0.0, 300, 300, 600]))


def test_half_precision_and_further_heads() -> None:
    given = outputs(("damage", 2), ("kind", 3), ("depth", 1))
    halved = {head: logits.bfloat16() for head, logits in given.items()}
    fused = fuse(halved, TABLES, MEMBERS)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, fuse({head: v.float() for head, v in halved.items()}, TABLES, MEMBERS))


def test_global_classes_that_no_head_tells_apart() -> None:
    with pytest.raises(ValueError, match=r"no head tells apart.*Found `members = \[0, 1, 2, 3, 4, 0\]`"):
        fuse(outputs(("damage", 2), ("kind", 3)), TABLES, torch.tensor([0, 1, 2, 3, 4, 0]))


def test_tasks_read_the_classes_of_the_global_space() -> None:
    found = readings(TABLES, MEMBERS)
    assert {task: table.tolist() for task, table in found.items()} == {"damage": [0, 1, 1, 0], "kind": [0, 2, 0, 1]}


def test_a_task_reads_the_map_and_sums_the_probabilities() -> None:
    """Against a loop over the pixels; the class is that of the map even where a sum passes it."""
    logits, table = outputs(("one", 4))["one"] / 10, torch.tensor([0, 1, 1, 2])
    log_probabilities, classes = read_as(logits, table)
    passed = 0
    for b, y, x in itertools.product(range(2), range(5), range(3)):
        probabilities = logits[b, :, y, x].double().softmax(0).tolist()
        sums = [sum(p for p, c in zip(probabilities, table.tolist(), strict=True) if c == of) for of in range(3)]
        assert log_probabilities[b, :, y, x].exp().tolist() == pytest.approx(sums, abs=1e-6)
        assert classes[b, y, x] == table[max(range(4), key=probabilities.__getitem__)]
        passed += max(range(3), key=sums.__getitem__) != classes[b, y, x]
    assert passed


class SeesColours(Answers):
    """Finds each channel where its colour is bright, pixel by pixel."""

    def forward(self, images: Tensor, share: object = None) -> dict[str, Tensor]:
        return {name: torch.stack([-images[:, k], images[:, k]], 1) for k, name in enumerate(CHANNELS)}


@pytest.mark.parametrize(
    "predictor",
    [WHOLE, TestTimeAugmentation(WHOLE, "dihedral"), WINDOWS, TestTimeAugmentation(WINDOWS, ["identity", "rot90"])],
    ids=["whole", "tta", "windows", "both"],
)
def test_every_combination_survives(predictor: Predictor) -> None:
    shown = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    codes, confidence = channel_codes(
        predictor(SeesColours(**dict.fromkeys(CHANNELS, "dense")), shown.float() * 4 - 2), CHANNELS
    )
    expected = sum(shown[:, k].to(torch.uint8) << k for k in range(3))
    assert codes.unique().tolist() == list(range(8))
    assert torch.equal(codes.cpu(), expected)
    torch.testing.assert_close(confidence.cpu(), torch.full((2, 24, 40), torch.sigmoid(torch.tensor(4.0)).item()))
