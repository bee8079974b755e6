"""Every format of annotation tools: the same scenes become the same masks, in one command a model."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.utils import get_method
from tests.data.formats._exports import CLASSES, EXPORTS, scenes

from hsl.data.files.decode_masks import decode_instances, decode_mask
from hsl.data.files.records import Catalogue, Record
from hsl.data.files.scan import scan

CONF = Path(__file__).parents[3] / "conf" / "data"


def read(name: str, root: Path) -> Catalogue:
    """What the reader of an option makes of a folder, with the settings of its file."""
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf8"))["reader"]
    reader = get_method(settings.pop("_target_"))
    given = {key: value for key, value in settings.items() if key[0] != "_" and not str(value).startswith("${")}
    catalogue: Catalogue = reader(root, **given)
    return catalogue


def mask_of(record: Record) -> np.ndarray:
    assert record.mask is not None
    return decode_mask(record.mask.read(), record.mask.name)


@pytest.mark.parametrize("name", EXPORTS)
def test_each_format_reads_the_same_scenes(name: str, tmp_path: Path) -> None:
    drawn = scenes()
    EXPORTS[name](tmp_path, drawn)
    catalogue = read(name, tmp_path)
    assert catalogue.classes == CLASSES
    assert [record.id for record in catalogue.records] == [scene.name for scene in drawn]
    for record, scene in zip(catalogue.records, drawn, strict=True):
        np.testing.assert_array_equal(mask_of(record), scene.mask(), err_msg=f"{name}: {scene.name}")
        if record.instances is not None:
            ids = decode_instances(record.instances.read(), record.instances.name)
            np.testing.assert_array_equal(ids > 0, scene.mask() > 0)
            assert len(np.unique(ids)) == len(scene.objects) + 1
    splits = [record.split for record in catalogue.records]
    assert splits in ([None] * len(drawn), [scene.split for scene in drawn])
    found = scan(catalogue, None, 0)
    assert found.errors == {}
    assert len({record.mask.stamp() for record in catalogue.records if record.mask}) == len(drawn)
