"""What tests of readers share: an option's reader, the masks of its catalogue, its error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.utils import get_method

from hsl.data.files.decode_masks import decode_instances, decode_mask
from hsl.data.files.records import Catalogue, Record
from hsl.errors import DataError

CONF = Path(__file__).parents[3] / "conf" / "data"


def read(name: str, root: Path, **changed: Any) -> Catalogue:
    """What the reader of an option makes of a folder, with the settings of its file."""
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf8"))["reader"]
    reader = get_method(settings.pop("_target_"))
    given = {key: value for key, value in settings.items() if key[0] != "_" and not str(value).startswith("${")}
    catalogue: Catalogue = reader(root, **given | changed)
    return catalogue


def message(name: str, root: Path, **changed: Any) -> str:
    """The error that it raises."""
    with pytest.raises(DataError) as error:
        read(name, root, **changed)
    return str(error.value)


def mask_of(catalogue: Catalogue, record: Record | None = None) -> np.ndarray:
    """The mask of a record, by default of the first."""
    record = record or catalogue.records[0]
    assert record.mask is not None
    return decode_mask(record.mask.read(), record.mask.name, catalogue.palette, values=catalogue.values)


def ids_of(record: Record) -> np.ndarray:
    """The objects of a record."""
    assert record.instances is not None
    return decode_instances(record.instances.read(), record.instances.name)
