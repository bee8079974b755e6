"""`hsl audit` as a page: what is planted in a folder is shown, names are text, what was not looked at is said."""

import html
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.conftest import composed

from hsl.errors import DataError
from hsl.verbs.audit import audit

SIZE = (48, 64)
CLASSES = "classes: [background, leaf]\n"


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(40, 216, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_NEAREST)


def write(root: Path, name: str, image: np.ndarray, columns: int = 20) -> None:
    for folder, array in (("images", image), ("masks", np.zeros(image.shape[:2], np.uint8))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        if folder == "masks":
            array[:, :columns] = 1
        Image.fromarray(array).save(root / folder / f"{name}.png")


def page_of(root: Path, out: Path, *settings: str, stops: bool = False) -> tuple[str, list[str]]:
    """The page as written, and its headings with the text under them."""
    (root / "dataset.yaml").write_text(CLASSES)
    words = ["data=folder", f"data.root={root}", "data.split.groups=null", "cache_dir=null", f"output={out}", *settings]
    cfg = composed(words, "audit")
    if stops:
        with pytest.raises(DataError, match="The audit stops"):
            audit(cfg)
    else:
        audit(cfg)
    page = (out / "index.html").read_text(encoding="utf8")
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    sections = re.split(r"<h[23][^>]*>", page)
    return page, [html.unescape(re.sub(r"<[^>]+>", " ", each)) for each in sections]


def section(sections: list[str], start: str) -> str:
    (found,) = [each for each in sections if each.startswith(start)]
    return found


def test_planted_pictures_are_shown_and_names_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, odd = tmp_path / "data", '<b>"copy"'
    for i in range(24):
        write(root, f"p{i:02}", picture(i))
    write(root, odd, picture(3), columns=36)
    write(root, "p05_again", picture(5)[::-1])
    write(root, "soft", cv2.GaussianBlur(picture(30), (0, 0), 6))
    write(root, "night", picture(31) // 8)
    page, sections = page_of(root, tmp_path / "out", stops=True)
    assert "<b>" not in page
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out
    headings = [each.split("\n")[0].strip() for each in sections]
    first = headings.index("2 of 2 pairs shown") + 1
    assert headings[first] == f"{odd} and p03"
    assert "Masks unlike in 25.0 % of the pixels" in sections[first]
    assert "second vflip. Masks alike in every pixel" in section(sections, "p05 and p05_again")
    assert page.count("<img") >= 8 + 3
    assert "soft:" in section(sections, "Blurred: ")
    assert "night:" in section(sections, "Dark: 1 of 1 shown")
    assert "below" in section(sections, "Dark: ")
    assert "Listed: shorter side" in section(sections, "Small: none listed")
    assert "This stops a run: " in page
    assert "Pictures worth a look: 2 blurred, 1 dark" in page
    states = section(sections, "State of each rule")
    assert "(g) a picture that is there twice ✕\u00a0stopped" in re.sub(r"\s*\n\s*|  +", " ", states).replace("  ", " ")


def test_nothing_to_show_and_what_was_not_looked_at_are_said(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for i in range(6):
        write(root, f"p{i}", picture(i))
    off = ("data.audit.near_duplicates=off", "data.audit.missing_classes=warn")
    _, sections = page_of(root, tmp_path / "out", *off)
    pairs = section(sections, "Pairs")
    assert "Near-duplicates were not looked for (off); copies were. No two pictures were found to be alike." in pairs
    assert "there are 6" in section(sections, "Dark: not checked")
    states = section(sections, "State of each rule")
    assert "–\u00a0off" in states
    assert "?\u00a0not checked" in states
    answer = "".join(sections)
    assert "Nothing that was checked stops a run." in answer
    assert "0 pairs of copies, 0 with masks of unlike classes; near-duplicates were not looked for." in answer
    assert "Pictures worth a look: not checked." in answer


def test_files_that_cannot_be_read_leave_a_gap_and_many_pairs_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for i in range(24):
        write(root, f"p{i:02}", picture(0))
    (root / "masks" / "p01.png").write_bytes(b"no picture")
    _, sections = page_of(root, tmp_path / "out", "data.audit.near_duplicates=warn", stops=True)
    assert section(sections, "20 of 23 pairs shown")
    for i in range(4, 24):
        (root / "images" / f"p{i:02}.png").unlink()
        (root / "masks" / f"p{i:02}.png").unlink()
    for i in (2, 3):
        (root / "images" / f"p{i:02}.png").write_bytes(b"neither")
    halves = ("data.split.num_folds=2", "data.split.test_fraction=0")
    page, sections = page_of(root, tmp_path / "gaps", *halves, stops=True)
    assert page.count("the picture cannot be read") == 2
    unread = section(sections, "p00 and p01")
    assert "the mask cannot be read" in unread
    assert "Masks not compared: there are not two that can be read." in unread
