import numpy as np
import pytest

from hsl.data.demo.painting import MATERIALS, fractal, ground, noise, paint


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
