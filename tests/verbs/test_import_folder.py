import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from tests.conftest import composed
from tests.data.formats._exports import EXPORTS, scenes

from hsl.cli import _quoted
from hsl.data.files.decoding import Decoding
from hsl.data.formats.folder import read_folder
from hsl.errors import ConfigError, DataError
from hsl.run_folder.provenance import read_provenance
from hsl.verbs.import_folder import import_folder
from hsl.verbs.train.train import train

READERS = {"folder": "hsl.data.formats.folder.read_folder", "labelme": "hsl.data.formats.labelme.read_labelme",
           "hf": "hsl.data.formats.hf.read_hub"}  # fmt: skip


def look(root: Path, **keys: object) -> None:
    import_folder(OmegaConf.create({"input": str(root), "output": None, "data": None, "readers": READERS} | keys))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Parts whose pictures have the same names, masks of 0 and 255, a path that needs quotes."""
    root = tmp_path / "größe & mehr"
    for part in ("train", "val"):
        for i in range(4):
            exif = Image.Exif()
            exif[306], exif[272] = f"2024:05:01 10:00:0{i}", "Cam 1"
            for folder in ("images", "masks"):
                (root / part / folder).mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([i, part == "val"])
            Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(
                root / part / "images" / f"s{i % 2}_{i}.JPG", "JPEG", exif=exif
            )
            mask = np.zeros((9, 12), np.uint8)
            mask[: i + 1] = 255
            Image.fromarray(mask).save(root / part / "masks" / f"s{i % 2}_{i}.png")
    return root


def test_a_folder_is_named_and_the_command_reads_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(root)
    said = capsys.readouterr().out
    assert "masks for 8 of 16 picture files" in said
    assert "8 pictures, 2 classes (background, foreground); 0 pictures without a mask" in said
    command = next(line for line in said.splitlines() if line.startswith("  hsl train"))
    words = shlex.split(command)[2:]
    assert words[-2:] == ["data/split=holdout", "data.split.groups=null"]
    hsl = [sys.executable, "-c", "from hsl.cli import main; main()"]
    audited = subprocess.run(
        [*hsl, "audit", *words, "data.audit.near_duplicates=off", "output=out"],
        cwd=root.parent, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
    )  # fmt: skip
    assert audited.returncode == 0, audited.stderr


def test_a_folder_is_written_with_links(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ready = tmp_path / "ready"
    look(root, output=str(ready))
    said = capsys.readouterr().out
    assert "8 pictures written (16 link)" in said
    assert "prefix, date, camera" in said
    found = read_folder(ready)
    assert [record.id for record in found.records[:2]] == ["train_s0_0", "train_s0_2"]
    assert found.records[0].attributes == {
        "folder": "train/images", "prefix": "train_s0", "date": "2024-05-01 10:00:00", "camera": "Cam 1",
    }  # fmt: skip
    assert {record.split for record in found.records} == {"train", "val"}
    mask = found.records[0].mask
    assert mask is not None
    assert Decoding.of(found).mask(mask).sum() == 12
    (ready / "notes.txt").write_text("mine")
    before = sorted(path.name for path in ready.rglob("*"))
    with pytest.raises(ConfigError, match=r"notes.txt"):
        look(root, output=str(ready))
    assert sorted(path.name for path in ready.rglob("*")) == before


def test_masks_that_are_painted_are_drawn(root: Path, tmp_path: Path) -> None:
    masks = root / "train" / "masks"
    (masks / "crack").mkdir()
    (masks / "stain").mkdir()
    for path in sorted(masks.glob("*.png")):
        path.rename(masks / "crack" / path.name)
    (masks / "stain" / "s0_0.png").write_bytes((masks / "crack" / "s1_3.png").read_bytes())
    look(root / "train", output=str(tmp_path / "ready"))
    found = read_folder(tmp_path / "ready")
    assert found.classes == ("background", "crack", "stain")
    mask = found.records[0].mask
    assert mask is not None
    assert np.bincount(Decoding.of(found).mask(mask).ravel()).tolist() == [60, 0, 48]


def test_what_cannot_be_imported(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "file").touch()
    Image.new("RGB", (4, 4)).save(tmp_path / "alone" / "a.png")
    for given, said in (
        ("empty", "Found 0 files and no picture"),
        ("alone", "Found 1 pictures, as `a.png`, and nothing that fits them"),
        ("gone", "Found nothing"),
        ("file", "Found a file"),
    ):
        with pytest.raises(DataError, match=said):
            look(tmp_path / given)
    (tmp_path / "alone" / "manual").mkdir()
    for name in ("7_left.png", "7_right.png", "manual/7_manual1.gif"):
        Image.new("L", (4, 4)).save(tmp_path / "alone" / name)
    with pytest.raises(DataError, match=r"fits several of one id, as `7_left.png` and `7_right.png`. Give a picture"):
        look(tmp_path / "alone")
    with pytest.raises(ConfigError, match=r"one of what the folder may be, folder. Found `data = coco`"):
        look(root, data="coco")
    with pytest.raises(ConfigError, match="neither be nor hold"):
        look(root, output=str(tmp_path))
    with pytest.raises(ConfigError, match="Write `hsl import FOLDER`"):
        import_folder(OmegaConf.create({"input": None, "output": None, "data": None, "readers": READERS}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")
@pytest.mark.parametrize("name", EXPORTS)
def test_one_command_trains_on_the_export_of_each_tool(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "export of a tool"
    EXPORTS[name](root, scenes(9))
    conf = Path(__file__).parents[2] / "conf" / "data"
    options = {name: yaml.safe_load((conf / f"{name}.yaml").read_text())["reader"]["_target_"] for name in EXPORTS}
    look(root, readers=READERS | options)
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  hsl train"))
    words = [_quoted(word) for word in shlex.split(command)[2:]]  # as `hsl` hands them to Hydra
    assert f"data={'cvat' if name == 'voc' else name}" in words  # that one is the mask export of CVAT
    small = [
        "data.image_size=32", "data.batch_size=2", "data.num_workers=0", "data.audit.near_duplicates=off",
        "data.audit.missing_classes=warn", "data.audit.conflicts=warn", "encoder=mobilenetv3_small",
        "encoder.weights=null", "decoder.channels=[8,8,8,8,8]", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "logger=none", "callbacks.tta_evaluation=null", "callbacks.evaluation.num_examples=0",
        f"output_root={tmp_path / 'outputs'}",
    ]  # fmt: skip
    train(composed([*words, *small]))
    (run,) = (tmp_path / "outputs").glob("*/fold0/*")
    assert read_provenance(run)["status"] == "finished"
