"""One answer after the other, kept so that no window, process or crash loses one."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hsl.data.labels.review import Settings, Thresholds, checked
from hsl.errors import ConfigError, DataError
from hsl.pseudo_labels.refine import Agreement, write_agreement
from hsl.pseudo_labels.spot_check import begin, go_on, keep_answer

HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("AAB", name)``: a folder of labels, one picture ``p0``, ``p1`` ... for each letter."""

    def go(tiers: str, name: str = "labels", data: str = "leaves") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        rows = [f"p{i},rust,{tier},0.9,0.1,0.2,1,gradcam,/nowhere/p{i}.png\n" for i, tier in enumerate(tiers)]
        (folder / "labels.csv").write_text(HEAD + "".join(rows))
        (folder / "labels.json").write_text(json.dumps({"format": 1, "data": data, "classes": ["ground", "leaf"]}))
        return folder

    return go


def test_a_review_begins_with_every_answer_open_and_goes_on_where_it_was(write: Write) -> None:
    folder = write("AAB")
    _, review = begin(folder, Settings())
    assert set(review.verdicts) == {"p0", "p1", "p2"}
    assert set(review.verdicts.values()) == {None}
    keep_answer(folder, "p1", "reject")
    _, again = begin(folder, Settings())
    assert again.verdicts["p1"] == "reject"
    assert again.verdict["left"] == 2
    assert list(again.verdicts) == list(review.verdicts)


def test_answers_are_judged_taken_back_and_changed(write: Write) -> None:
    folder = write("A")
    begin(folder, Settings())
    assert keep_answer(folder, "p0", "accept").verdict["passed"] is True
    assert keep_answer(folder, "p0", "marginal").verdict["passed"] is False
    taken_back = keep_answer(folder, "p0", None)
    assert taken_back.verdicts == {"p0": None}
    assert taken_back.verdict["left"] == 1


def test_a_finished_review_is_what_training_asks_for(write: Write) -> None:
    folder = write("AAAB")
    begin(folder, Settings())
    for name in ("p0", "p1", "p2"):
        keep_answer(folder, name, "accept")
    with pytest.raises(DataError, match="1 of 4 pictures are not judged yet"):
        checked(folder)
    keep_answer(folder, "p3", "reject")
    assert checked(folder)["demote_b"] is True


def test_the_largest_disagreements_are_asked_first_and_decide_nothing(write: Write) -> None:
    folder = write("A" * 5 + "B" * 3)
    write_agreement(folder, [Agreement(f"p{i}", "rust", "B", "B", i / 10, 0.0, False, i < 4) for i in range(8)])
    settings = Settings(per_class_and_tier=1)
    _, review = begin(folder, settings)
    assert list(review.flagged) == ["p0", "p1", "p2", "p3"]
    assert list(review.answers)[:4] == ["p0", "p1", "p2", "p3"]
    assert set(review.answers) == {*review.flagged, *review.verdicts}
    alone = [name for name in review.flagged if name not in review.verdicts]
    for name in alone:
        review = keep_answer(folder, name, "reject")
    assert review.verdict["left"] == len(review.verdicts) == 2
    for name in review.verdicts:
        keep_answer(folder, name, "accept")
    assert checked(folder)["passed"] is True  # a biased sample would have failed them
    _, again = begin(folder, settings)
    assert [again.answers[name] for name in alone] == ["reject"] * len(alone)


def test_a_picture_in_the_sample_and_among_the_disagreements_has_one_answer(write: Write) -> None:
    folder = write("A")
    write_agreement(folder, [Agreement("p0", "rust", "A", "A", 0.1, 0.0, False, True)])
    begin(folder, Settings())
    review = keep_answer(folder, "p0", "accept")
    assert review.flagged == review.verdicts == review.answers == {"p0": "accept"}


def test_threads_lose_no_answer(write: Write) -> None:
    folder = write("A" * 24)
    begin(folder, Settings(per_class_and_tier=24))
    names = [f"p{i}" for i in range(24)]
    halves = [threading.Thread(target=lambda part=part: [keep_answer(folder, n, "accept") for n in part])
              for part in (names[:8], names[8:16], names[16:])]  # fmt: skip
    for each in halves:
        each.start()
    for each in halves:
        each.join()
    assert set(go_on(folder)[1].verdicts.values()) == {"accept"}


@pytest.mark.slow
def test_processes_lose_no_answer(write: Write) -> None:
    folder = write("A" * 12)
    begin(folder, Settings(per_class_and_tier=12))
    program = (
        "import sys; from pathlib import Path; from hsl.pseudo_labels.spot_check import keep_answer\n"
        "for name in sys.argv[2:]: keep_answer(Path(sys.argv[1]), name, 'accept')"
    )
    names = [f"p{i}" for i in range(12)]
    started = [subprocess.Popen([sys.executable, "-c", program, str(folder), *part]) for part in (names[:6], names[6:])]
    assert [each.wait(60) for each in started] == [0, 0]
    assert set(go_on(folder)[1].verdicts.values()) == {"accept"}


def test_a_full_disk_leaves_the_answers_before(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("AA")
    begin(folder, Settings())
    keep_answer(folder, "p0", "accept")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            keep_answer(folder, "p1", "accept")
    assert go_on(folder)[1].verdicts == {"p0": "accept", "p1": None}
    assert sorted(path.name for path in folder.iterdir()) == [
        ".review.json.lock", "labels.csv", "labels.json", "review.json"
    ]  # fmt: skip


def test_a_picture_that_is_not_looked_at_takes_no_answer(write: Write) -> None:
    folder = write("AA")
    begin(folder, Settings())
    with pytest.raises(DataError, match=r"`\.\./p9` is not one of the 2 pictures"):
        keep_answer(folder, "../p9", "accept")


def test_other_settings_than_the_review_began_with(write: Write) -> None:
    folder = write("AA")
    begin(folder, Settings())
    other = Settings(per_class_and_tier=5, thresholds=Thresholds(A=0.5))
    with pytest.raises(ConfigError, match=r"`per_class_and_tier = 10`.*Found `per_class_and_tier = 5`"):
        begin(folder, other)


@pytest.mark.parametrize("harm", ["other data", "other labels", "gone", "damaged", "other pictures"])
def test_a_review_that_does_not_belong_is_refused_and_left_alone(write: Write, harm: str) -> None:
    folder = write("AAB")
    begin(folder, Settings())
    path = folder / "review.json"
    words = {
        "other data": "made for the data set leaves. Found one of roads",
        "other labels": "made for this labelling",
        "gone": "review.json` is gone",
        "damaged": "review.json` is damaged",
        "other pictures": "of the pictures that its settings choose",
    }
    content = json.loads(path.read_text())
    if harm == "other data":
        other = write("AAB", "other", data="roads")
        begin(other, Settings())
        path.write_bytes((other / "review.json").read_bytes())
    elif harm == "other labels":
        write("ABB")
    elif harm == "gone":
        path.unlink()
    elif harm == "damaged":
        path.write_text(path.read_text()[:50])
    else:
        content["verdicts"] = {}
        path.write_text(json.dumps(content))
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(DataError, match=words[harm]):
        keep_answer(folder, "p0", "accept")
    if harm != "gone":
        with pytest.raises(DataError, match=words[harm]):
            begin(folder, Settings())
    assert (path.read_bytes() if path.exists() else None) == before
