"""`hsl plan` from the command line: what it reads, what it writes, and that the command it prints is taken."""

import builtins
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from scipy import ndimage
from tests.verbs.plan._inputs import LIGHT, SIDE, write_folder

from hsl.cli import conf_dir, run_verb
from hsl.config.calls import check_calls
from hsl.config.experiment_file import register_all
from hsl.config.validation import validate
from hsl.data.prepared import PreparedData
from hsl.verbs.plan import timing
from hsl.verbs.plan.fingerprint import fingerprint, num_boundary_pixels, objects_of
from hsl.verbs.profile.memory import Step

WORDS = ["data=folder", "data.root=pictures", "data.num_workers=0", "data.audit.near_duplicates=off", "time=2h"]


@pytest.fixture
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take what they are said to."""
    monkeypatch.setattr(timing, "measure", lambda *_: [LIGHT])
    monkeypatch.setattr(timing, "measure_batch", lambda _, height, width, number, __: Step(number, 10**8, 0.5))
    chosen = {"encoder": "mobilenetv3_small", "decoder": "unet_small"}
    for key, value in chosen.items():
        monkeypatch.setitem(vars(LIGHT), key, value)


def plan(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["hsl", *words])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("plan")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def read(folder: Path, *words: str) -> PreparedData:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("plan", [*WORDS, f"data.root={folder / 'pictures'}", f"output_root={folder / 'outputs'}", *words])
    data: PreparedData = instantiate(cfg.data).read()
    return data


def test_objects_equal_those_of_another_library() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        shown = ndimage.uniform_filter(generator.random((40, 50)), 3) > 0.52
        names, number = ndimage.label(shown, np.ones((3, 3)))
        distance = ndimage.distance_transform_edt(np.pad(shown, 1))[1:-1, 1:-1]
        expected = [[(names == k).sum(), 2 * distance[names == k].max() - 1] for k in range(1, number + 1)]
        found = objects_of(shown)
        assert (found[:, 2:] == shown.shape).all()
        np.testing.assert_allclose(sorted(found[:, :2].tolist()), sorted(expected), rtol=1e-5)
    mask = generator.integers(0, 3, (9, 7)).astype(np.uint8)
    mask[4, 3] = 255
    beside = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    edge = sum(
        mask[y, x] != 255
        and any(0 <= y + i < 9 and 0 <= x + j < 7 and mask[y + i, x + j] not in (255, mask[y, x]) for i, j in beside)
        for y in range(9)
        for x in range(7)
    )
    assert num_boundary_pixels(mask) == edge


def test_the_training_part_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "pictures")
    data = read(tmp_path)
    opened: list[str] = []
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, *a, _real=real, **k: opened.append(str(path)) or _real(path, *a, **k)
        )
    facts = fingerprint(data)
    monkeypatch.undo()
    seen = {Path(path).stem for path in opened if "pictures" in path and path.endswith(".png")}
    assert seen == set(data.parts["train"])
    assert (facts.num_images, facts.num_groups, facts.colour) == (len(seen), len(seen) // 2, False)
    spot, crack = facts.classes
    assert (spot.smallest_tenth, crack.smallest_tenth) == (9.0, 1.0)
    assert spot.share == pytest.approx(81 / (SIDE[0] * SIDE[1]))
    assert facts.num_scored == 16 - len(data.parts["test"]) // 2


def test_pictures_that_are_held_out_change_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path / "pictures")
    data = read(tmp_path)
    before = fingerprint(data).as_json()
    held_out = [name for part in ("val", "test") for name in data.parts[part]]
    mask = np.zeros(SIDE, np.uint8)
    for name in held_out:
        Image.fromarray(mask + 1).save(tmp_path / "pictures" / "masks" / f"{name}.png")
    assert fingerprint(data).as_json() == before


@pytest.mark.usefixtures("quick_steps")
def test_plans_compose_and_name_their_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "pictures")
    assert plan(tmp_path, monkeypatch, *WORDS) == 0
    said = capsys.readouterr().out
    commands = [line for line in said.splitlines() if line.startswith("hsl train")]
    assert len(commands) == 3
    page = json.loads((tmp_path / "outputs/plan/fingerprint.json").read_text())
    assert page["classes"][1]["name"] == "crack"
    for line in commands:
        words = [word for word in line.split()[2:] if word not in ("-m", "fold=0,1,2", "fold=0")]
        register_all(words, conf_dir())
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", words)
        validate(cfg)
        content: Any = yaml.safe_load(Path(words[0].partition("@")[2]).read_text())
        assert content["data"]["root"] == cfg.data.root == "pictures"
        assert content["data"]["split"]["num_folds"] == cfg.data.split.num_folds == 3
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            check_calls(compose("train", [*words, "data.batch_size=3"]))
        assert cfg.augmentation.flips.vertical is None
        text = Path(words[0].partition("@")[2]).read_text()
        assert "# Open: does a picture upside down" in text
        assert "`crack` is 0" in text
        assert "1.0 px across" in text


MISTAKES = {
    ("time=0",): "`time` should be a minute or more",
    ("time=banana", "memory=lots", "orientation=left", "encoders=[]"): "`memory` should be auto",
    ("data=folder", "data.root=nowhere"): "does not exist",
    (*WORDS, "++data.seed=3"): "can only set keys that there are",
    (*WORDS, "memory=1MiB"): "`memory` should be at least",
    (*WORDS, "data.split.num_folds=40"): "`num_folds` should be at most the number of groups",
}


@pytest.mark.usefixtures("quick_steps")
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "pictures")
    for words, sentence in MISTAKES.items():
        assert plan(tmp_path, monkeypatch, *words) == 2, words
        assert sentence in capsys.readouterr().err, words
        assert not (tmp_path / "outputs/plan/standard.yaml").exists()


@pytest.mark.usefixtures("quick_steps")
def test_labels_without_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    root = write_folder(tmp_path / "pictures")
    shutil.rmtree(root / "masks")
    rows = ["id,group,label"] + [f"p{i:02d},g{i // 2:02d},{'good' if i % 4 else 'bad'}" for i in range(32)]
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    words = [*WORDS, "data.reader.masks_optional=true", "data.audit.missing_classes=warn"]
    assert plan(tmp_path, monkeypatch, *words) == 2
    assert "`data.image_labels=COLUMN`" in capsys.readouterr().err
    assert plan(tmp_path, monkeypatch, *words, "data.image_labels=label") == 0
    made = (tmp_path / "outputs/plan/standard.yaml").read_text()
    assert "override /task: classifier" in made
    assert "image_labels: label" in made


@pytest.mark.slow
def test_the_printed_command_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    write_folder(tmp_path / "my pictures")
    words = [*WORDS, "data.root='my pictures'", "time=3min", "output='a plan'", "encoders=[mobilenetv3_small]"]
    assert plan(tmp_path, monkeypatch, *words) == 0
    line = next(line for line in capfd.readouterr().out.splitlines() if "quick.yaml" in line)
    code = [sys.executable, "-c", "from hsl.cli import main; main()"]
    limits = ["+trainer.limit_train_batches=1", "trainer.max_epochs=1", "callbacks.tta_evaluation=null"]
    command = [*code, *shlex.split(line)[1:], *limits, "encoder.weights=null"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "outputs/plan_quick/fold0").glob("*/metrics.json"))
