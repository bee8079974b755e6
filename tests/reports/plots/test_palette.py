import numpy as np

from hsl.reports.plots.palette import hex_colour, palette


def test_forty_unlike_colours_that_never_equal_the_ignored_one():
    table = palette()
    assert table.shape == (256, 3)
    assert len({tuple(colour) for colour in table[:40]}) == 40
    assert tuple(table[255]) not in {tuple(colour) for colour in table[:255]}


def test_later_classes_never_get_the_colour_of_the_background():
    assert not (palette()[1:255] == palette()[0]).all(axis=1).any()
    np.testing.assert_array_equal(palette()[40], palette()[1])


def test_neighbours_stay_apart_for_a_reader_without_green_receptors():
    # Machado, Oliveira & Fernandes 2009, deuteranomaly of severity 1.0, on linear RGB
    simulate = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]])  # fmt: skip
    linear = (palette()[:8] / 255) ** 2.2
    seen = (linear @ simulate.T).clip(0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(8)
    assert distance.min() > 0.1


def test_hex():
    assert hex_colour(0) == "#2b2b2b"
    assert hex_colour(255) == "#d9d9d9"
