"""Labels are reviewed and scored."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from omegaconf import DictConfig

from hsl.errors import ConfigError, DataError
from hsl.pseudo_labels.spot_check import keep_answer
from hsl.verbs.label.review import listening, review
from hsl.verbs.label.score import _compare, _table

Tiny = Callable[..., DictConfig]
HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "labels.csv").write_text(HEAD + "p0,rust,A,0.9,0.1,0.2,1,gradcam,p0.png\n")
    (folder / "labels.json").write_text(json.dumps({"format": 1, "data": "leaves", "classes": ["ground", "leaf"]}))
    return folder


@pytest.fixture
def served(labels: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where the server would have listened; the picture is accepted meanwhile."""
    places: list[tuple[str, int]] = []

    def run(self: Any, sockets: list[socket.socket]) -> None:
        places.append(sockets[0].getsockname()[:2])
        keep_answer(labels, "p0", "accept")
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return places


def test_the_address_and_the_end_are_printed(
    tiny: Tiny, labels: Path, served: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    review(tiny(f"labels={labels}", "port=0", verb="label_review"))
    printed = capsys.readouterr().out
    ((host, port),) = served
    assert host == "127.0.0.1"
    assert f"1 of 1 pictures to judge: http://127.0.0.1:{port}/\n" in printed
    assert printed.endswith("passed\n")


def test_other_machines_need_a_new_token_each_time(
    tiny: Tiny, labels: Path, served: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny(f"labels={labels}", "port=0", "host=0.0.0.0", verb="label_review")
    tokens = []
    for _ in range(2):
        review(cfg)
        tokens.append(capsys.readouterr().out.partition("/?token=")[2].partition("\n")[0])
    assert all(len(token) >= 32 for token in tokens)
    assert tokens[0] != tokens[1]
    assert [host for host, _ in served] == ["0.0.0.0"] * 2


def test_the_port_is_8712_and_taken_is_said(tiny: Tiny, labels: Path) -> None:
    assert tiny(f"labels={labels}", verb="label_review").port == 8712
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"`port = {port}`, which is in use.*port=0"):
            review(tiny(f"labels={labels}", f"port={port}", verb="label_review"))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(ConfigError, match="should be an address of this machine"):
        listening(host, 0)


@pytest.mark.parametrize("port", ["port=70000", "port=-1", "port=none"])
def test_a_port_that_is_none(tiny: Tiny, labels: Path, port: str) -> None:
    with pytest.raises(ConfigError, match=r"`port` should be in \[0, 65535\]"):
        review(tiny(f"labels={labels}", port, verb="label_review"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("per_class_and_tier=0", "`per_class_and_tier`: .* Found `per_class_and_tier = 0`"),
        ("thresholds.A=1.5", "`thresholds.A`"),
        ("max_c_share=none", "`max_c_share`"),
    ],
)
def test_settings_that_are_wrong(tiny: Tiny, labels: Path, setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        review(tiny(f"labels={labels}", setting, verb="label_review"))
    assert not (labels / "review.json").exists()


def test_a_folder_without_labels(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        review(tiny(f"labels={tmp_path / 'nowhere'}", verb="label_review"))


# Score.


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    label = np.array([[0, 1, 1], [255, 2, 0]], np.uint8)
    matrix, unsure, known = _compare(label, truth, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert (unsure, known) == (1, 5)
    table = _table({"A": [(matrix, unsure, known)], "B": [], "C": []}, ("ground", "leaf", "spot"))
    whole, first = table.iloc[0], table.iloc[1]
    assert whole["iou/ground"] == pytest.approx(1 / 2)
    assert whole["iou/leaf"] == pytest.approx(1 / 2)
    assert whole["iou/spot"] == pytest.approx(1)
    assert whole["uncertain"] == pytest.approx(1 / 5)
    assert first["miou"] == whole["miou"] == pytest.approx(2 / 3)
    assert np.isnan(table.iloc[2]["miou"])
