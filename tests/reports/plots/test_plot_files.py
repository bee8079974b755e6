import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hsl.errors import ConfigError
from hsl.reports.plots.palette import SERIES, SERIES_DARK, hex_colour, palette
from hsl.reports.plots.plot_files import INK, REPORT_STYLE, Plot, save_plots


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


def plot_of(name="a", on_card=False):
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(4, 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [1, 0], "o", color=SERIES[1])
        axes.set_title("<title>")
    return Plot(name, "caption", figure, ["x", "y"], [[1, 0.5], ["b", None]], on_card)


@pytest.mark.filterwarnings("error")
def test_every_plot_is_saved_in_each_format_with_its_data(tmp_path):
    before = dict(matplotlib.rcParams)
    save_plots([plot_of("a"), plot_of("b")], tmp_path, formats=["pdf", "png", "svg"])
    heads = {"pdf": b"%PDF-", "png": b"\x89PNG\r", "svg": b"<?xml"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{k}" for n in "ab" for k in [*heads, "csv"]}
    for kind, head in heads.items():
        assert (tmp_path / f"a.{kind}").read_bytes().startswith(head)
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,0.5\nb,\n"
    assert "&lt;title&gt;" in (tmp_path / "a.svg").read_text()  # text stays text
    assert dict(matplotlib.rcParams) == before


def test_the_file_and_the_page_share_one_drawing(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *to, **how: drawn.append(how["format"]) or save(self, *to, **how)
    )
    plot = plot_of()
    save_plots([plot], tmp_path)
    assert "fill: #ffffff" in (tmp_path / "a.svg").read_text()
    assert "fill: #ffffff" not in plot.svg  # the page shows through
    assert sorted(drawn) == ["png", "svg"]


def test_the_same_data_give_the_same_files(tmp_path):
    for folder in ("one", "two"):
        save_plots([plot_of()], tmp_path / folder, formats=["pdf", "png", "svg"])
    for kind in ("pdf", "png", "svg", "csv"):
        assert (tmp_path / "one" / f"a.{kind}").read_bytes() == (tmp_path / "two" / f"a.{kind}").read_bytes()


def test_inside_the_page_a_plot_has_no_foreign_id_address_or_fixed_colour():
    svg = plot_of("a").svg
    assert svg.startswith("<svg role=")
    assert svg.endswith("</svg>")
    assert "http" not in svg
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert used  # the markers and the clip path
    assert set(re.findall(r' id="([^"]+)"', svg)) == used
    assert all(name.startswith("a-") for name in used)
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert INK not in svg
    assert not used & set(re.findall(r' id="([^"]+)"', plot_of("b").svg))


def test_a_plot_on_a_card_keeps_its_colours():
    svg = plot_of(on_card=True).svg
    assert SERIES[1] in svg
    assert "var(" not in svg


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(("colours", "page"), [(SERIES, "#ffffff"), (SERIES_DARK, "#12161b")])
def test_the_series_stand_out_from_the_page(colours, page):
    for colour in colours:
        low, high = sorted((luminance(colour), luminance(page)))
        assert (high + 0.05) / (low + 0.05) >= 3
    assert len(set(colours)) == 7


@pytest.mark.parametrize("dpi", [100, 600, 1200])
def test_tiff_is_rgb_compressed_and_as_fine_as_asked_for(tmp_path, dpi):
    save_plots([plot_of()], tmp_path, dpi, ["tiff", "png"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.tiff", "a.png", "a.csv"}
    with Image.open(tmp_path / "a.tiff") as tiff, Image.open(tmp_path / "a.png") as png:
        assert (tiff.format, tiff.mode, tiff.info["compression"]) == ("TIFF", "RGB", "tiff_lzw")
        assert tiff.size == png.size == (4 * dpi, 2 * dpi)
        assert [round(float(side)) for side in (*tiff.info["dpi"], *png.info["dpi"])] == [dpi] * 4
        assert tiff.getpixel((0, 0)) == (255, 255, 255)
        difference = np.abs(np.asarray(tiff, dtype=int) - np.asarray(png.convert("RGB"), dtype=int))
    assert difference.max() <= 1  # the same drawing
    assert (tmp_path / "a.tiff").stat().st_size < 8 * dpi**2  # a third of what it is uncompressed


def test_the_figure_is_left_as_it_was(tmp_path):
    plot = plot_of()
    before = plot.svg
    save_plots([plot], tmp_path, 300, ["tiff"])
    assert plot.svg == before


@pytest.mark.parametrize("formats", [[], None, ["gif"], ["png", "bmp"], "jpeg", [3]])
def test_formats_that_are_none(tmp_path, formats):
    with pytest.raises(ConfigError, match=r"`formats` should be one or more of svg, pdf, png, tiff\. Found"):
        save_plots([plot_of()], tmp_path, 160, formats)


@pytest.mark.parametrize("dpi", [0, -1, 49, 2401, 1.5, "fine", None, True])
def test_resolutions_that_are_none(tmp_path, dpi):
    with pytest.raises(ConfigError, match=r"`dpi` should be a whole number in \[50, 2400\]. Found `dpi = "):
        save_plots([plot_of()], tmp_path, dpi)


def test_more_pixels_than_can_be_drawn(tmp_path):
    large = Plot("large", "", Figure(figsize=(40, 2)), ["x"], [])
    with pytest.raises(ConfigError, match="`dpi` should be at most 1638 for the plot `large` of 40 inches") as caught:
        save_plots([large], tmp_path, 2000, ["tiff"])
    assert not list(tmp_path.iterdir())
    assert "leave png and tiff out" in str(caught.value)
    save_plots([large], tmp_path, 2000, ["svg"])


def test_one_format_as_a_word_and_each_once(tmp_path):
    save_plots([plot_of()], tmp_path, formats="svg")
    save_plots([plot_of("b")], tmp_path, formats=["png", "png"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.csv", "b.png", "b.csv"}
