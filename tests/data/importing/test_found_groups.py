from pathlib import Path

import numpy as np
from PIL import Image

from hsl.data.files.scan import scan
from hsl.data.formats.folder import read_folder
from hsl.data.importing.found_groups import find_groups, labels_rows


def test_pictures_that_belong_together_are_joined(tmp_path: Path) -> None:
    names = ["copy", "orig", "clip_1", "clip_2", "burst", "later", "alone", "turned"]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(names):
        seed = 1 if name in ("copy", "orig", "turned") else number + 5
        image = np.kron(np.random.default_rng(seed).integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        exif = Image.Exif()
        if name in ("burst", "later"):
            exif[306] = f"2024:05:01 10:00:0{number - 4}"
        shown = np.rot90(image) if name == "turned" else image
        Image.fromarray(shown).save(tmp_path / "images" / f"{name}.png", exif=exif)
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "labels.csv").write_text("id,group,site\nalone,g,s\nburst,g,t\n")
    catalogue = read_folder(tmp_path, classes=["background", "crack"])
    found = find_groups(catalogue, scan(catalogue, None, 1), 0.98, None)
    assert found.group == {
        "copy": "copy", "orig": "copy", "turned": "copy", "clip_1": "clip_1", "clip_2": "clip_1", "burst": "alone",
        "later": "alone", "alone": "alone",
    }  # fmt: skip
    assert found.shared == {"copy": 3, "clip_1": 2, "alone": 3}
    assert found.reason["clip_1"] == "name clip, 1 to 2"
    assert found.reason["alone"] == "group g of labels.csv"
    assert "taken in one go" in found.reason["later"]
    columns, rows = labels_rows(catalogue, found)
    assert columns == ["id", "group", "group_reason", "site"]
    assert rows[0] == ["alone", "alone", "group g of labels.csv", "s"]
