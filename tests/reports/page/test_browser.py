"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.verbs.report import report

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def page_file(module_full_runs):
    conf = Path(__file__).parents[3] / "conf"
    overrides = [f"runs={module_full_runs}/outputs", f"output={module_full_runs}/report", "resamples=100"]
    with initialize_config_dir(str(conf), version_base="1.3"):
        return report(compose("report", overrides))


@pytest.fixture
def visit(browser, page_file):
    """``visit(width, scheme)``: the page, which at the end has sent no request and met no error."""
    opened, said, requests = [], [], []

    def go(width=1400, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        opened.append(context)
        return page

    yield go
    for context in opened:
        context.close()
    assert said == []
    assert {url for url in requests if not url.startswith("data:")} == {page_file.as_uri()}


def column(page, table, name):
    heads = page.locator(f"#{table} thead th").all_text_contents()
    index = next(i for i, text in enumerate(heads) if text.strip() == name)
    return page.locator(f"#{table} tbody tr > :nth-child({index + 1})").all_text_contents()


def test_a_click_sorts_and_a_second_one_turns_the_order(visit):
    page = visit()
    assert column(page, "table-ranking", "model") == ["convnext_tiny", "mit_b3", "maxvit_tiny"]
    head = page.locator("#table-ranking th", has_text="model")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "table-ranking", "model") == ["convnext_tiny", "maxvit_tiny", "mit_b3"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "table-ranking", "model") == ["mit_b3", "maxvit_tiny", "convnext_tiny"]


def test_numbers_sort_as_numbers_and_gaps_stay_below(visit):
    page = visit()
    page.locator("summary", has_text="Every picture").click()
    for turn in ("descending", "ascending"):
        page.locator("#table-pictures th", has_text="mean").get_by_role("button").click()
        values = [float(text) for text in column(page, "table-pictures", "mean (%)")]
        assert values == sorted(values, reverse=turn == "descending")
        assert len(set(values)) > 3
    head = page.locator("#table-ranking th", has_text="mIoU, TTA (%)").first
    assert not head.is_visible()  # further columns are one click away
    page.locator("#more-ranking").check()
    head.get_by_role("button").click()
    assert column(page, "table-ranking", "model") == ["convnext_tiny", "mit_b3", "maxvit_tiny"]
    page.locator("#table-objects th", has_text="PQ (%)").get_by_role("button").click()
    quality = column(page, "table-objects", "PQ (%)")
    numbers = [float(text) for text in quality if text != "–"]
    assert "–" in quality[-1]
    assert numbers == sorted(numbers, reverse=True)
    assert len(page.locator("th[aria-sort]").all()) == 3  # one per table


def test_the_keyboard_reaches_and_works_everything(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    box = page.locator(".skip").bounding_box()
    assert box["y"] >= 0  # it shows when it has the focus
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        place = page.evaluate("(e => e.closest('[id]')?.id + ' ' + e.tagName)(document.activeElement)")
        seen.add(place)
        if place == "table-ranking BUTTON":
            break
    assert {"filters SELECT", "filters INPUT", "table-ranking BUTTON"} <= seen
    page.keyboard.press("Enter")
    assert page.locator("#table-ranking th[aria-sort]").count() == 1
    page.keyboard.press("Space")
    assert page.locator("#table-ranking th[aria-sort=ascending]").count() == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert page.locator("[tabindex]:not([tabindex='0'])").count() == 0


def visible(page, selector):
    return page.locator(f"{selector}:visible").count()


def test_filters_by_class_model_and_group(visit):
    page = visit()
    assert page.locator("#filters output").text_content() == ""
    all_pictures, all_rows = visible(page, "#main article"), visible(page, "#table-objects tbody tr")
    page.locator("[name=class]").select_option(label="crack")
    assert column_visible(page, "table-heat") == ["crack"]
    assert visible(page, "#table-objects tbody tr") < all_rows
    page.locator("[name=model]").select_option(label="mit_b3")
    assert column_visible(page, "table-ranking") == ["2"]
    page.locator("[name=class]").select_option(label="all")
    page.locator("[name=model]").select_option(label="all")
    assert visible(page, "#main article") == all_pictures
    group = page.locator("#main article[data-group]").first.get_attribute("data-group")
    name = page.locator("#groups option").nth(int(group)).get_attribute("value")
    page.locator("[name=group]").fill(name)
    shown = visible(page, "#main article")
    assert 0 < shown < all_pictures
    assert shown == page.locator(f'#main article[data-group="{group}"]:visible').count()
    assert f"{shown} of {all_pictures} pictures shown" in page.locator("#filters output").text_content()
    page.locator("[name=group]").fill("no such group")
    assert visible(page, "#main article") == 0
    assert visible(page, ".nothing") > 0
    page.get_by_role("button", name="show all").click()
    page.wait_for_function("document.querySelector('#filters output').textContent === ''")
    assert visible(page, "#main article") == all_pictures
    assert visible(page, ".nothing") == 0


def column_visible(page, table):
    rows = page.locator(f"#{table} tbody tr:visible").all()
    return [row.locator(":scope > *").first.text_content().strip() for row in rows]


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out_and_every_picture_loads(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(each => !each.complete || !each.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("[...document.images].every(each => each.alt)")
    assert page.locator("#main img").count() > 50


def test_the_column_of_the_model_stays_while_the_others_scroll(visit):
    page = visit(400)
    scroll, cell = page.locator(".scroll:has(#table-ranking)"), page.locator("#table-ranking td.fixed").first
    assert scroll.evaluate("each => each.scrollWidth > each.clientWidth")
    scroll.evaluate("each => { each.scrollLeft = each.scrollWidth; }")
    assert cell.bounding_box()["x"] == pytest.approx(scroll.bounding_box()["x"], abs=1)


CONTRAST = """
([selector, ground]) => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const linear = parts.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const style = getComputedStyle(document.querySelector(selector));
  const a = light(selector.includes("svg") ? style.fill : style.color);
  const b = light(getComputedStyle(document.querySelector(ground)).backgroundColor);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(visit, scheme):
    page = visit(scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert dark == (scheme == "dark")
    for selector in ("body", "h2", "td", "nav a", "figcaption", "#plot-ranking svg text", "#plot-errors svg text"):
        assert page.evaluate(CONTRAST, [selector, "body"]) >= 4.5, selector
    card = "#plot-confusion_01_convnext_tiny"
    assert page.evaluate(CONTRAST, [f"{card} svg text", f"{card} .scroll"]) >= 4.5


def test_on_paper_everything_is_unfolded_and_the_bar_is_gone(visit):
    page = visit()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert visible(page, ".bar") == 0
    assert len(page.pdf()) > 50_000


def test_without_scripts_the_page_still_shows_everything(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#table-ranking tbody tr").count() == 3
    assert not page.locator("#filters").is_visible()
    context.close()
