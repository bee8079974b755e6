"""The review page in a real browser, served by the command line: Debian's Chromium, driven by Playwright."""

import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from hsl.pseudo_labels.refine import Agreement, write_agreement
from hsl.pseudo_labels.spot_check import keep_answer

HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"
TIERS = "AAAAABBC"

pytestmark = [pytest.mark.slow]


def draw_leaf(i, root):
    """A green ellipse with a brown spot, and its mask: leaf, symptom, an uncertain rim."""
    y, x = np.mgrid[:192, :256]
    distance = np.hypot((x - 128) / 110, (y - 96) / 70)
    spot = np.hypot(x - 90 - 10 * i, y - 96) < 14 + i
    picture = np.full((192, 256, 3), (196, 190, 180), np.uint8)
    picture[distance < 1] = (60, 120 + 8 * i, 50)
    picture[spot] = (120, 70, 30)
    mask = (distance < 1).astype(np.uint8)
    mask[spot] = 2
    mask[np.abs(distance - 1) < 0.05] = 255
    Image.fromarray(picture).save(root / f"leaf {i}.png")
    Image.fromarray(mask).save(root / "labels" / "masks" / f"leaf {i}.png")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("review")
    (root / "labels" / "masks").mkdir(parents=True)
    rows = ""
    for i, tier in enumerate(TIERS):
        draw_leaf(i, root)
        label = ("healthy", "rust")[i % 2]
        rows += (
            f"leaf {i},{label},{tier},0.{90 - i},0.0{i + 1},0.3{i},{i % 3 and 1},gradcam grabcut,{root}/leaf {i}.png\n"
        )
    (root / "labels" / "labels.csv").write_text(HEAD + rows)
    page = {"format": 1, "data": "leaves", "classes": ["background", "leaf", "symptom"]}
    (root / "labels" / "labels.json").write_text(json.dumps(page))
    return root / "labels"


@contextmanager
def serving(labels):
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{hears}; from hsl.cli import main; main()"
    words = ["label", "review", f"labels={labels}", "port=0"]
    server = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True)
    yield re.search(r"http://\S+", server.stdout.readline()).group()
    server.send_signal(signal.SIGINT)
    printed, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert printed.splitlines()[-1].startswith(("passed", "not passed"))


@pytest.fixture(scope="module")
def address(drawn):
    with serving(drawn) as address:
        yield address


@pytest.fixture
def visit(browser, address, drawn):
    """``visit(width, scheme)``: the page of a review anew, which at the end has met no error and asked nobody else."""
    for each in verdicts(drawn):
        keep_answer(drawn, each, None)
    opened, said, requests = [], [], []

    def go(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        opened.append(context)
        page.goto(address)
        page.locator("#review, #verdict").locator("visible=true").wait_for()
        return page

    yield go
    for context in opened:
        context.close()
    assert said == []
    assert [url for url in requests if not url.startswith(("data:", address))] == []


def verdicts(drawn):
    return json.loads((drawn / "review.json").read_text())["verdicts"]


def wait_count(page, judged):
    expect(page.locator("#count")).to_have_text(f"{judged} of {len(TIERS)} judged")


def name(page):
    return page.locator("#name").text_content().partition(". ")[2]


def test_keys_answer_move_and_undo(visit, drawn):
    page = visit()
    order = list(verdicts(drawn))
    assert name(page) == order[0]
    for key in "amr":
        page.keyboard.press(key)
    wait_count(page, 3)
    assert [verdicts(drawn)[each] for each in order[:4]] == ["accept", "marginal", "reject", None]
    assert name(page) == order[3]
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#name")).to_have_text(f"3. {order[2]}")
    assert page.get_by_role("button", name="reject").get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#name")).to_have_text(f"5. {order[4]}")
    page.keyboard.press("u")
    wait_count(page, 2)
    assert name(page) == order[2]
    assert verdicts(drawn)[order[2]] is None
    page.keyboard.press("Control+r")  # the browser's own key stays its own
    assert verdicts(drawn)[order[2]] is None


def test_buttons_do_what_the_keys_do(visit, drawn):
    page = visit()
    order = list(verdicts(drawn))
    for i, word in enumerate(("accept", "marginal", "reject")):
        page.get_by_role("button", name=word).click()
        wait_count(page, i + 1)
    assert [verdicts(drawn)[each] for each in order[:3]] == ["accept", "marginal", "reject"]
    page.get_by_role("button", name="undo").click()
    wait_count(page, 2)
    page.get_by_role("button", name="back").click()
    expect(page.locator("#name")).to_have_text(f"2. {order[1]}")


def test_a_fast_hand_answers_one_picture_with_each_key(visit, drawn):
    page = visit()
    page.evaluate("[...'amraamr'].forEach(key => document.dispatchEvent(new KeyboardEvent('keydown', {key})))")
    wait_count(page, 7)
    assert list(verdicts(drawn).values()) == [
        "accept", "marginal", "reject", "accept", "accept", "marginal", "reject", None
    ]  # fmt: skip


def test_the_slider_changes_the_opacity_and_keeps_its_arrows(visit, drawn):
    page = visit()
    opacity = "getComputedStyle(document.querySelector('#overlay')).opacity"
    assert page.evaluate(opacity) == "0.5"
    page.locator("#opacity").fill("0")
    assert page.evaluate(opacity) == "0"
    page.locator("#opacity").press("ArrowRight")
    assert page.evaluate(opacity) == "0.05"
    assert page.locator("#opacity-value").text_content() == "5 %"
    assert name(page) == next(iter(verdicts(drawn)))


def test_picture_and_mask_lie_upon_each_other(visit):
    page = visit()
    expect(page.locator("#overlay")).to_have_css("visibility", "visible")
    boxes = [page.locator(one).bounding_box() for one in ("#picture", "#overlay")]
    assert boxes[0] == boxes[1]
    sizes = page.evaluate("['#picture', '#overlay'].map(s => document.querySelector(s).naturalWidth)")
    assert sizes == [256, 256]


def test_progress_survives_a_reload_and_another_window(visit, drawn):
    page = visit()
    other = visit()
    order = list(verdicts(drawn))
    page.keyboard.press("a")
    wait_count(page, 1)
    other.keyboard.press("ArrowRight")
    expect(other.locator("#name")).to_have_text(f"2. {order[1]}")
    other.keyboard.press("r")
    wait_count(other, 2)
    page.reload()
    wait_count(page, 2)
    assert name(page) == order[2]
    assert [verdicts(drawn)[each] for each in order[:2]] == ["accept", "reject"]


def test_the_verdict_comes_with_the_last_answer(visit, drawn):
    page = visit()
    for _ in TIERS:
        page.keyboard.press("a")
    page.locator("#verdict").wait_for()
    assert page.locator("#outcome").text_content() == "Passed: training takes these labels"
    assert page.locator("#tiers tr").all_text_contents() == ["A5000100 %90 %", "B2000100 %70 %", "C1000100 %–"]
    assert not page.locator("#way-out").is_visible()
    assert "12.5 % of the data; at most 30 %" in page.locator("#share-c").text_content()
    page.keyboard.press("u")
    page.locator("#review").wait_for()
    page.keyboard.press("r")
    page.locator("#verdict").wait_for()
    (rejected,) = [each for each, answer in verdicts(drawn).items() if answer == "reject"]
    page.locator("#disliked").get_by_role("button", name=rejected).click()
    assert name(page) == rejected
    page.reload()
    page.locator("#verdict").wait_for()


def test_a_failed_review_says_why(visit):
    page = visit()
    for _ in TIERS:
        page.keyboard.press("m")
    page.locator("#verdict").wait_for()
    assert page.locator("#outcome").text_content() == "Failed: training refuses these labels"
    assert page.locator("#reasons li").all_text_contents() == [
        "Tier A: 0 of 5 accepted (0 %), at least 90 % are needed.",
        "Tier B: 0 of 2 accepted (0 %), at least 70 % are needed. Its pictures become tier C.",
        "Tier C is 37.5 % of the data, at most 30 % is allowed.",
    ]
    assert page.locator("#way-out").is_visible()


def test_refined_labels_show_their_largest_disagreements_first_beside_the_first_label(browser, drawn, tmp_path):
    labels = tmp_path / "round_1"
    shutil.copytree(drawn, labels, ignore=shutil.ignore_patterns("review.json", ".*"))
    (tmp_path / "first" / "masks").mkdir(parents=True)
    for i in range(len(TIERS)):
        mask = np.asarray(Image.open(labels / "masks" / f"leaf {i}.png")).copy()
        mask[mask == 2] = 1
        Image.fromarray(mask).save(tmp_path / "first" / "masks" / f"leaf {i}.png")
    page = json.loads((labels / "labels.json").read_text()) | {"first": str(tmp_path / "first")}
    (labels / "labels.json").write_text(json.dumps(page))
    write_agreement(labels, [Agreement(f"leaf {i}", "rust", tier, tier, (7 - i) / 7, 0.2, False, i > 4)
                             for i, tier in enumerate(TIERS)])  # fmt: skip
    with serving(labels) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        expect(page.locator("#name")).to_have_text("1. leaf 7")
        expect(page.locator("#agreement")).to_have_text(
            "mean IoU 0.000 with the first label: among the largest disagreements of its class"
        )
        expect(page.locator("#overlay")).to_have_attribute("src", re.compile(r"^overlay/leaf%207"))
        page.keyboard.press("f")
        expect(page.locator("#overlay")).to_have_attribute("src", re.compile(r"^first/leaf%207"))
        expect(page.get_by_role("button", name="first label")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="first label").click()
        expect(page.locator("#overlay")).to_have_attribute("src", re.compile(r"^overlay/leaf%207"))
        for key in "ram":
            page.keyboard.press(key)
        expect(page.locator("#name")).to_have_text(re.compile(r"^4\. "))
        expect(page.locator("#agreement")).not_to_contain_text("among")
        page.get_by_role("button", name="verdict").click()
        expect(page.locator("#disagreements")).to_have_text(
            "Of the 3 largest disagreements with the first labels 1 are accepted, 1 marginal, 1 rejected and 0 left. "
            "They are no random sample and decide nothing by themselves."
        )
        page.close()


CONTRAST = """
selector => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const linear = parts.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const element = document.querySelector(selector);
  let ground = element;
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(ground).backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(visit, scheme):
    page = visit(scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert dark == (scheme == "dark")
    page.keyboard.press("r")
    page.keyboard.press("ArrowLeft")
    page.locator("[aria-pressed=true]").wait_for()
    for selector in ("h1", "dt", "dd", "[aria-pressed=true]", "[aria-pressed=false]", ".soft", "#count"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector
    page.get_by_role("button", name="verdict").click()
    assert page.locator("#outcome").text_content() == "Not finished"


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="verdict").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
