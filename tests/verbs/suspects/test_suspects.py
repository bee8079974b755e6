"""From run folders with known maps to a ranked list, its page, and the masks that answers correct."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate
from PIL import Image
from tests._runs import split_of
from tests.conftest import composed
from tests.suspects._inputs import blobs, seen

from hsl.errors import ConfigError, DataError
from hsl.files.cells import read_rows_of_table
from hsl.run_folder.member_rows import KeptRows, RowsWriter
from hsl.suspects.listing import read_suspects
from hsl.suspects.shifts import moved
from hsl.verbs.suspects import fix as fixing
from hsl.verbs.suspects import suspects as listing

CLASSES = ["background", "crack", "stain"]
SPLIT = {**split_of(), "test": ["t0", "t1"]}
IDS = [name for fold in SPLIT["folds"] for name in fold["val"]]
TRUTH = {name: blobs(seed) for seed, name in enumerate([*IDS, "t0", "t1"])}
TRUTH["p0_0"][2:18, 70:90], TRUTH["p0_1"][2:18, 70:90] = 1, 1
OBJECT = np.s_[2:18, 70:90]


def planted() -> dict[str, Any]:
    """A missed object, one of the wrong class, a shift, a swap; ``p2_3`` has no mask."""
    masks = {name: mask.copy() for name, mask in TRUTH.items()}
    masks["p0_0"][OBJECT] = 0
    masks["p0_1"][OBJECT] = 2
    masks["p1_2"] = moved(masks["p1_2"], 5, -4)
    masks["p1_0"], masks["p2_1"] = masks["p2_1"], masks["p1_0"]
    del masks["p2_3"]
    return masks


@pytest.fixture
def data(tmp_path: Path) -> Any:
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for seed, name in enumerate(TRUTH):
        noise = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{name}.png")
    for name, mask in planted().items():
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "classes": CLASSES}))
    overrides = ["data=folder", f"data.root={root}", "data.reader.masks_optional=true", "data.num_workers=0"]
    settings = ["data.split.groups=null", "data.audit.missing_classes=warn", "cache_dir=null"]
    return instantiate(composed([*overrides, *settings], "audit").data).read()


@pytest.fixture
def runs(tmp_path: Path, make_run: Callable[..., Path], data: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two models of three folds that see what there is; the passes over checkpoints are taken as done."""
    for name, sure in (("a", 0.95), ("b", 0.8)):
        for fold, part in enumerate(SPLIT["folds"]):
            folder = make_run(name, name, fold, split=SPLIT, test=[[50, 0, 0], [0, 50, 0], [0, 0, 0]])
            writer = RowsWriter(folder, KeptRows(checkpoint="c", inference="plain", classes=CLASSES))
            writer.begin("val")
            for picture in part["val"]:
                writer.add_features(picture, np.zeros(2, np.float32))
                writer.add_map(picture, seen(TRUTH[picture], TRUTH[picture], sure=(sure,)).maps[0] / 255)
            writer.finish(part["val"], maps=True, seconds={})
    monkeypatch.setattr(listing, "keep_rows", lambda *given: None)
    for module in (listing, fixing):
        monkeypatch.setattr(module, "open_data", lambda *given: (None, SimpleNamespace(prepared=data)))
    return tmp_path / "outputs"


def called(runs: Path, *overrides: str, match: str = "*/*/*") -> Path:
    output = runs.parent / "suspects"
    listing.suspects(composed([f"runs='{runs}/{match}'", f"output={output}", *overrides], "suspects"))
    return output


def fixed(made: Path, rows: list[tuple[Any, ...]], *overrides: str) -> Path:
    path = made.parent / "answers.csv"
    path.write_text("rank,id,kind,answer\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    places = [f"suspects={made}", f"answers={path}", f"output={made.parent / 'fixes'}"]
    return fixing.fix(composed([*places, *overrides], "suspects_fix")).parent


def test_what_was_planted_is_told_and_nothing_else(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = called(runs, "shown=3")
    content = read_suspects(made)
    assert [(one.kind, one.id, one.other) for one in content.suspects[:2]] == [
        ("swapped files", "p1_0", "p2_1"), ("shifted mask", "p1_2", ""),
    ]  # fmt: skip
    assert {(one.kind, one.id, one.label, one.predicted) for one in content.suspects[2:]} == {
        ("missed object", "p0_0", "background", "crack"), ("wrong class", "p0_1", "stain", "crack"),
    }  # fmt: skip
    assert (content.suspects[1].down, content.suspects[1].right) == (-5, 4)
    assert {one.box for one in content.suspects[2:]} == {(2, 70, 16, 20)}
    assert (content.members, content.classes) == (["a", "b"], CLASSES)
    assert content.not_checked == {
        "without a mask": ["p2_3"], "in the test part, which no fold predicts": ["t0", "t1"],
    }  # fmt: skip
    assert (made / content.run).resolve() in [path.resolve() for path in runs.glob("a/*/*")]
    assert [one.id for one in content.pictures[:5]] == [
        "p1_0",
        "p2_1",
        "p1_2",
        *[one.id for one in content.suspects[2:]],
    ]
    told = capsys.readouterr().out
    assert "11 pictures checked: swapped files 1, shifted mask 1, missed object 1, wrong class 1." in told
    assert "Not checked: 1 pictures without a mask (p2_3)." in told
    table = read_rows_of_table(made / "suspects.csv")
    assert [(row["kind"], row["id"]) for row in table] == [(one.kind, one.id) for one in content.suspects]
    page = (made / "index.html").read_text()
    assert "4 suspects, the 3 surest on this page" in page
    assert "Not checked: 2 pictures in the test part" in page
    items = json.loads(page.partition('id="stored">')[2].partition("</script>")[0])["items"]
    assert [(item["rank"], item["kind"], len(item["rows"])) for item in items][:2] == [
        (1, "swapped files", 2), (2, "shifted mask", 1),
    ]  # fmt: skip
    assert list(items[2]["rows"][0]) == [f"picture {items[2]['id']}", "mask", "prediction"]


def test_answers_become_the_masks_that_were_planted_upon(runs: Path, data: Any) -> None:
    made = called(runs)
    content = read_suspects(made)
    rows = [(rank, one.id, one.kind, "reject") for rank, one in enumerate(content.suspects, 1)]
    folder = fixed(made, rows)
    masks = {path.stem: np.asarray(Image.open(path)) for path in (folder / "masks").iterdir()}
    assert sorted(masks) == ["p0_0", "p0_1", "p1_0", "p1_2", "p2_1"]
    for name in ("p0_0", "p0_1", "p1_0", "p2_1"):
        np.testing.assert_array_equal(masks[name], TRUTH[name])
    np.testing.assert_array_equal(masks["p1_2"][5:, :-4][:-5], TRUTH["p1_2"][5:, :-4][:-5])
    listed = read_rows_of_table(folder / "fixes.csv")
    assert {row["mask"] for row in listed} == {"as the models see it"}
    later = [(1, "p1_0", "swapped files", "accept"), (2, "p1_2", "shifted mask", "later")]
    folder = fixed(made, later)
    assert [path.stem for path in (folder / "masks").iterdir()] == ["p1_2"]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "masks" / "p1_2.png")), planted()["p1_2"])
    folder = fixed(made, rows, "format=coco")
    assert len(json.loads((folder / "coco.json").read_text())["images"]) == 5
    assert not (folder / "masks").exists()


def test_answers_to_another_list_are_refused_all_at_once(runs: Path) -> None:
    made = called(runs)
    rows = [(1, "elsewhere", "wrong class", "reject"), (99, "a", "b", "accept"), (2, "p1_2", "shifted mask", "perhaps")]
    with pytest.raises(DataError) as error:
        fixed(made, rows)
    for part in ("line 2: `1`, `elsewhere`", "line 3: `99`", "line 4: `answer` should be one of accept, reject, later"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="`format` should be one of png, labelme"):
        fixed(made, rows, "format=psd")


def test_one_model_is_checked_and_warned_of_and_missing_folds_are_refused(runs: Path, tmp_path: Path) -> None:
    content = read_suspects(called(runs, match="a/*/*"))
    assert content.notes[-1].startswith("a: one model: its own mistakes and those of the labels cannot be told apart")
    assert content.suspects[0].kind == "swapped files"
    with pytest.raises(DataError, match=r"a: fold 2 is missing"):
        called(runs, match="a/fold[01]/*")
    with pytest.raises(ConfigError, match=r"`shown` should be a whole number of at least 0. Found `shown = -1`"):
        called(runs, "shown=-1")


def test_labels_of_pictures_are_checked_too(runs: Path, add_image_head: Callable[..., Path]) -> None:
    for folder in sorted(runs.glob("*/*/*")):
        fold = int(folder.parent.name[-1])
        ids = SPLIT["folds"][fold]["val"]
        probabilities = np.full((len(ids), 3), 0.1)
        probabilities[:, 1] = 0.8
        targets = np.array([2 if name == "p1_1" else 1 for name in ids])
        add_image_head(folder, fold, split=SPLIT, given=(targets, probabilities))
        add_image_head(folder, fold, split=SPLIT, part="test")
    content = read_suspects(called(runs))
    (one,) = (one for one in content.suspects if one.kind == "wrong label of the picture")
    assert (one.id, one.label, one.predicted, round(one.score, 6)) == ("p1_1", "rust", "miner", 0.7)
    assert len(content.pictures) == 12


@pytest.mark.slow
def test_the_keys_of_the_page_lead_to_masks(runs: Path, browser: Any) -> None:
    made = called(runs)
    context = browser.new_context()
    page = context.new_page()
    page.goto((made / "index.html").as_uri())
    for key in ("r", "f", "a", "u"):
        page.keyboard.press(key)
    assert page.locator("#count").inner_text() == "2 of 4 judged"
    page.reload()  # nothing is lost
    assert page.locator("#count").inner_text() == "2 of 4 judged"
    assert page.locator("#name").inner_text().startswith("3. ")
    page.select_option("#filter", "shifted mask")
    assert page.locator("#name").inner_text() == "2. p1_2"
    with page.expect_download() as download:
        page.keyboard.press("Escape")
        page.locator("#download").click()
    path = runs.parent / "downloaded.csv"
    download.value.save_as(path)
    context.close()
    folder = fixing.fix(
        composed([f"suspects={made}", f"answers={path}", f"output={runs.parent / 'fixes'}"], "suspects_fix")
    ).parent
    assert sorted(each.stem for each in (folder / "masks").iterdir()) == ["p1_0", "p1_2", "p2_1"]
