import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from hsl.reports.palette import SERIES, SERIES_DARK
from hsl.reports.plot_files import INK, REPORT_STYLE, Plot, save_plots


def plot_of(name="a", on_card=False):
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(4, 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [1, 0], "o", color=SERIES[1])
        axes.set_title("<title>")
    return Plot(name, "caption", figure, ["x", "y"], [[1, 0.5], ["b", None]], on_card)


@pytest.mark.filterwarnings("error")
def test_every_plot_is_saved_three_times_with_its_data(tmp_path):
    before = dict(matplotlib.rcParams)
    save_plots([plot_of("a"), plot_of("b")], tmp_path)
    heads = {"pdf": b"%PDF-", "png": b"\x89PNG\r", "svg": b"<?xml"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{k}" for n in "ab" for k in [*heads, "csv"]}
    for kind, head in heads.items():
        assert (tmp_path / f"a.{kind}").read_bytes().startswith(head)
    assert (tmp_path / "a.csv").read_text() == "x,y\n1,0.5\nb,\n"
    assert "&lt;title&gt;" in (tmp_path / "a.svg").read_text()  # text stays text
    assert dict(matplotlib.rcParams) == before


def test_the_same_data_give_the_same_files(tmp_path):
    for folder in ("one", "two"):
        save_plots([plot_of()], tmp_path / folder)
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
