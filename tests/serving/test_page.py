"""The page in a real browser, with a model whose behaviour a picture chooses: Debian's Chromium, by Playwright."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect
from tests.serving._inputs import FOREIGN, TOKEN, FakeModel, Limits, Running, picture, png

from hsl.reports.plots.palette import palette

pytestmark = [pytest.mark.slow]
IMAGE = picture(size=(64, 48), seed=5)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    server = Running(Limits(), TOKEN)
    yield server
    server.stop()


@pytest.fixture
def visit(browser: Any, running: Running) -> Iterator[Callable[..., Any]]:
    """``visit(width)``: the page with its token, which at the end has met no error of its own and asked nobody else."""
    opened, errors, requests = [], [], []

    def go(width: int = 1280, token: str = TOKEN) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800})
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append(context)
        page.goto(f"http://127.0.0.1:{running.port}/")
        page.locator("#token").fill(token)
        page.get_by_role("button", name="use").click()
        return page

    yield go
    for context in opened:
        context.close()
    assert errors == []
    own = ("data:", "blob:", f"http://127.0.0.1:{running.port}/")
    assert [url for url in requests if not url.startswith(own)] == []


def choose(page: Any, content: bytes, name: str = "leaf.png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


HANDED = """([content, kind]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "leaf.png", { type: "image/png" }));
  const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  document.dispatchEvent(event);
}"""
PAINTED = """() => {
  const canvas = document.querySelector("#mask");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.width, canvas.height, [...data]];
}"""


@pytest.mark.parametrize("width", [1280, 360])
def test_a_picture_is_shown_under_its_classes(visit: Callable[..., Any], width: int) -> None:
    page = visit(width)
    expect(page.locator("#about")).to_be_visible()
    choose(page, png(IMAGE))
    expect(page.locator("#result")).to_be_visible()
    columns, rows, values = page.evaluate(PAINTED)
    shown = np.array(values, np.uint8).reshape(rows, columns, 4)
    mask = FakeModel().predict(IMAGE).class_map("segmentation")
    assert (columns, rows) == (64, 48)
    np.testing.assert_array_equal(shown[..., 3] > 0, mask > 0)
    np.testing.assert_array_equal(shown[mask > 0][:, :3], palette()[mask[mask > 0]])
    text = page.locator("#tables").inner_text()
    assert f"{100 * (mask == 2).mean():.1f} %" in text
    assert "kind: " in text
    boxes = [page.locator(one).bounding_box() for one in ("#picture", "#mask")]
    assert boxes[0] == pytest.approx(boxes[1], abs=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_slider_lays_the_classes_over(visit: Callable[..., Any]) -> None:
    page = visit()
    choose(page, png(IMAGE))
    expect(page.locator("#result")).to_be_visible()
    page.locator("#opacity").fill("0")
    expect(page.locator("#mask")).to_have_css("opacity", "0")
    page.locator("#opacity").press("End")
    expect(page.locator("#mask")).to_have_css("opacity", "1")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(visit: Callable[..., Any], kind: str) -> None:
    page = visit()
    expect(page.locator("#about")).to_be_visible()
    page.evaluate(HANDED, [base64.b64encode(png(IMAGE)).decode(), kind])
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_a_foreign_picture_says_why_and_is_shown_when_asked(visit: Callable[..., Any]) -> None:
    page = visit()
    choose(page, png(picture(FOREIGN, size=(64, 48))))
    expect(page.locator("#problem")).to_contain_text("`distance` is above 1.")
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="all the same").click()
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_errors_are_text(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(token="wrong-token-of-somebody")
    expect(page.locator("#problem")).to_contain_text("Authorization: Bearer")
    page.locator("#token").fill(TOKEN)
    page.get_by_role("button", name="use").click()
    expect(page.locator("#token-form")).to_be_hidden()
    choose(page, b"<svg onload='alert(1)'></svg>", "<img src=x onerror=alert(1)>.png")
    expect(page.locator("#problem")).to_contain_text("should be PNG, JPEG")
    assert page.locator("img").count() == 1


def test_a_tiff_that_browsers_do_not_show_has_its_classes(visit: Callable[..., Any]) -> None:
    page = visit()
    choose(page, png(IMAGE, "TIFF"), "leaf.tif")
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#problem")).to_contain_text("cannot show pictures of this kind")
    box = page.locator("#mask").bounding_box()
    assert (box["width"], box["height"]) == (64, 48)
