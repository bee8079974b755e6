import numpy as np
import pytest
from skimage.measure import label
from skimage.morphology import skeletonize

from hsl.data.demo import damage
from hsl.data.demo.damage import KINDS, Panel, add_damage
from hsl.data.demo.painting import MATERIALS, fractal, ground, noise, paint

SIDE, ZOOM = 320, 2


@pytest.mark.parametrize("material", MATERIALS)
def test_a_painting_is_a_picture(material):
    for seed in range(6):  # every scene
        canvas = paint(np.random.default_rng(seed), 90, material)
        assert canvas.shape == (90, 90, 3)
        assert canvas.dtype == np.float32
        assert canvas.min() >= 0
        assert canvas.max() <= 255
        assert canvas.std() > 15


def test_the_seed_decides_the_painting():
    first, again, other = (paint(np.random.default_rng(seed), 64, "wood") for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 5


def test_varnish_is_yellow():
    means = np.mean([paint(np.random.default_rng(seed), 64, "wood").mean((0, 1)) for seed in range(12)], axis=0)
    assert means[0] > means[1] > means[2]


def test_materials_look_unlike():
    flat = np.full((384, 384, 3), 128, np.float32)
    seen = {name: ground(np.random.default_rng(0), flat, name)[..., 0] for name in MATERIALS}
    assert all(2 < image.std() < 15 for image in seen.values())
    # wood has its grain along the columns: they change less along a column than along a row
    down, across = (np.abs(np.diff(seen["wood"], axis=axis)).mean() for axis in (0, 1))
    assert across > 3 * down
    # the weave of a canvas repeats 64 times: that part of its spectrum is strong, plaster has none of it
    spectra = {name: np.abs(np.fft.fft2(image)) for name, image in seen.items()}
    weave = {name: spectrum[60:69, 60:69].mean() for name, spectrum in spectra.items()}
    assert weave["canvas"] > 5 * weave["plaster"]


def test_an_unknown_material_is_refused():
    with pytest.raises(ValueError, match=r"`material` should be one of .*Found `material = 'marble'`"):
        ground(np.random.default_rng(0), np.zeros((8, 8, 3), np.float32), "marble")


@pytest.mark.parametrize("shape", [(33, 70), (64, 64)])
def test_noise_is_smooth_over_its_cell(shape):
    field = noise(np.random.default_rng(0), shape, (16, 16))
    assert field.shape == shape
    assert 0.3 < field.std() < 1.5
    assert np.abs(np.diff(field, axis=0)).mean() < 0.25 * field.std()


def test_fractal_noise_is_rougher_than_its_first_layer():
    smooth = noise(np.random.default_rng(0), (64, 64), (32, 32))
    rough = fractal(np.random.default_rng(0), (64, 64), 32)
    assert np.abs(np.diff(rough, axis=1)).mean() > 1.5 * np.abs(np.diff(smooth, axis=1)).mean()


def grey_panel(width=2.0, contrast=1.0):
    return Panel(np.full((SIDE, SIDE, 3), 120, np.float32), ZOOM, width, contrast)


def draw(kind, seed, **options):
    panel = grey_panel(**options)
    getattr(damage, kind)(np.random.default_rng(seed), panel)
    return panel


@pytest.mark.parametrize("kind", KINDS)
def test_a_damage_is_one_object_of_its_kind(kind):
    for seed in range(5):
        panel = draw(kind, seed)
        assert panel.kinds == [KINDS.index(kind)]
        assert np.unique(panel.ids).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_marked_can_be_seen_and_the_rest_is_almost_untouched(kind):
    for seed in range(5):
        panel = draw(kind, seed)
        change = np.abs(panel.canvas - 120).max(axis=2)
        assert change[panel.ids == 1].mean() > 35
        assert change[panel.ids == 0].mean() < 1
        assert (change[panel.ids == 1] > 5).mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_without_contrast_nothing_is_seen_and_all_is_marked(kind):
    panel = draw(kind, 1, contrast=0.0)
    assert (panel.canvas == 120).all()
    np.testing.assert_array_equal(panel.ids, draw(kind, 1).ids)


@pytest.mark.parametrize("kind", ["crack", "scratch"])
@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_lines_are_as_wide_as_asked(kind, width):
    areas, lengths = 0, 0
    for seed in range(5):
        ids = draw(kind, seed, width=width).ids
        areas += ids.sum()
        lengths += skeletonize(ids).sum()
    # the skeleton counts a diagonal step as one pixel, so the width comes out up to 1.4 times too large
    assert 0.7 * width * ZOOM < areas / lengths < 1.5 * width * ZOOM


def colour(kind):
    panels = [draw(kind, seed) for seed in range(5)]
    return np.concatenate([panel.canvas[panel.ids == 1] for panel in panels]).mean(axis=0)


def test_kinds_look_unlike():
    assert colour("crack").max() < 60
    assert colour("puncture").max() < 110
    assert colour("scratch").min() > 190
    assert 140 < colour("paint_loss").mean() < 200
    red, green, blue = colour("stain")
    assert red > green > blue
    assert red < 110


def test_sizes_are_those_of_a_picture():
    radius = {
        kind: np.sqrt(np.mean([draw(kind, seed).ids.sum() for seed in range(8)]) / np.pi) / ZOOM
        for kind in ("puncture", "paint_loss", "stain")
    }
    assert 2 < radius["puncture"] < 5 < radius["paint_loss"] * 1.2
    assert radius["paint_loss"] < radius["stain"] < 15


def test_a_scratch_is_straighter_than_a_crack():
    def bends(kind):
        """Pixels of the skeleton for each pixel of distance between its ends."""
        found = []
        for seed in range(10):
            lines = label(skeletonize(draw(kind, seed).ids), connectivity=2)
            for number in range(1, lines.max() + 1):
                points = np.argwhere(lines == number)
                found.append(len(points) / np.ptp(points, axis=0).max())
        return np.mean(found)

    assert bends("scratch") < 1.1 < 1.3 < bends("crack")


@pytest.mark.parametrize("kinds", [KINDS, ("stain",), ("crack", "puncture"), ()])
def test_only_the_kinds_asked_for_are_added(kinds):
    panel = grey_panel()
    add_damage(np.random.default_rng(0), panel, kinds, 1.0)
    assert {KINDS[kind] for kind in panel.kinds} == set(kinds)
    assert panel.ids.max() <= len(panel.kinds)


def test_density_scales_the_number_of_objects_but_one_of_each_stays():
    counts = {}
    for density in (0.01, 1.0, 3.0):
        panel = grey_panel()
        add_damage(np.random.default_rng(0), panel, KINDS, density)
        counts[density] = len(panel.kinds)
    assert counts[0.01] == 5
    assert counts[0.01] < counts[1.0] < counts[3.0]


def test_the_later_object_lies_on_top():
    panel = grey_panel()
    half, whole = np.zeros((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    half[:, :100] = 1
    panel.mark("stain", whole)
    panel.mark("crack", half)
    assert panel.kinds == [KINDS.index("stain"), KINDS.index("crack")]
    assert (panel.ids[:, :100] == 2).all()
    assert (panel.ids[:, 100:] == 1).all()
