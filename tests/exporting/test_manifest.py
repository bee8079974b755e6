import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hsl.errors import ConfigError, DataError
from hsl.exporting.manifest import (
    FORMAT,
    MANIFEST,
    Combination,
    Decoding,
    Fusion,
    Manifest,
    Model,
    Window,
    read_manifest,
    write_manifest,
)
from hsl.heads import Head

DENSE = Head("segmentation", "dense", ("clean", "rust"))
IMAGE = Head("classification", "image", ("a", "b"), several=True)
MODEL = Model(
    "members/0/model.onnx", (DENSE, IMAGE), (64, 48), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 32,
    Window(32, 16), ("identity", "hflip"), (64, 48), 2, Fusion("all", {"segmentation": (0, 1)}, (0, 1)), "one",
)  # fmt: skip
WHOLE = Manifest(
    "leaves", "onnx", (DENSE, IMAGE), Decoding((0.0, 4095.0), (12, 16), 300.0), (MODEL,),
    {"segmentation": Combination(("one",), {"kind": "weighted", "weights": [1.0]}, 1.5)},
    {"classification": (0.5, 0.25)}, ("leaf",), "CC-BY-4.0", {"fold": 0, "score": None},
)  # fmt: skip


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    folder = tmp_path / "artefact"
    (folder / "members" / "0").mkdir(parents=True)
    (folder / "members" / "0" / "model.onnx").write_bytes(b"graph")
    (folder / "README.md").write_text("card")
    write_manifest(folder, WHOLE)
    return folder


def test_what_is_written_is_read(artefact: Path) -> None:
    found = read_manifest(artefact)
    assert set(found.files) == {"README.md", "members/0/model.onnx"}
    assert replace(found, files={}) == WHOLE
    assert write_manifest(artefact, found) == found


def test_what_a_later_writer_adds_is_passed_over_and_an_older_manifest_has_defaults(artefact: Path) -> None:
    def later(page: dict) -> None:
        page["models"][0]["hue"] = 1
        del page["channels"]

    _edit(artefact, later)
    assert read_manifest(artefact).channels == ()


def test_every_error_says_what_to_do_and_that_helps(artefact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Found no manifest.json in it. Give the folder that was its `output`."):
        read_manifest(artefact / "members")
    sound = tmp_path / "sound"
    shutil.copytree(artefact, sound)
    cases = {
        "Found format 2. Take the version of hsl that made it": lambda page: page.update(format=FORMAT + 1),
        "should have the key `runtime`. Found none. Copy": lambda page: page.pop("runtime"),
        r"as `models\[0\].stride` int. Found `x`": lambda page: page["models"][0].update(stride="x"),
        r"as `heads\[1\].kind` .*image.*. Found `round`": lambda page: page["heads"][1].update(kind="round"),
        r"as `models\[0\].mean` tuple.float.*. Found `.1.`": lambda page: page["models"][0].update(mean=[1]),
        "Found `../../etc/passwd`": lambda page: page["files"].update({"../../etc/passwd": "0"}),
        "Found `other.onnx`": lambda page: page["models"][0].update(file="other.onnx"),
        "should name a model. Found none": lambda page: page.update(models=[]),
    }
    for sentence, damage in cases.items():
        _edit(artefact, damage)
        with pytest.raises((ConfigError, DataError), match=sentence):
            read_manifest(artefact)
        shutil.copy(sound / MANIFEST, artefact / MANIFEST)  # "Copy the artefact again"
        read_manifest(artefact)
    graph = artefact / "members" / "0" / "model.onnx"
    graph.write_bytes(b"Graph")
    with pytest.raises(DataError, match=r"it was changed or damaged. Copy the artefact again, or export it again"):
        read_manifest(artefact)
    graph.unlink()
    with pytest.raises(DataError, match=r"should have the file members/0/model.onnx. Found none. Copy the artefact"):
        read_manifest(artefact)
    (artefact / MANIFEST).write_bytes(b"{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_manifest(artefact)
    shutil.copytree(sound, artefact, dirs_exist_ok=True)
    read_manifest(artefact)


def _edit(folder: Path, change) -> None:
    page = json.loads((folder / MANIFEST).read_text())
    change(page)
    (folder / MANIFEST).write_text(json.dumps(page))
