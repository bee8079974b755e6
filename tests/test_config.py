"""The checks before torch: ranges, types, rules between groups."""

import subprocess
import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from hsl.config import ConfigError, nearest_multiples, validate


def config(**changes: object) -> object:
    cfg = OmegaConf.create(
        {
            "name": "x", "seed": 0, "fold": 0, "monitor": "val/miou", "monitor_mode": "max", "resume": None,
            "rerun": False, "encoder": {"size_multiple": 32},
            "data": {
                "root": "r", "image_size": 128, "batch_size": 8, "split": {"num_folds": 3},
                "evaluation_size": "image_size",
            },
            "inference": {},
            "trainer": {"max_epochs": 9, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1,
                        "gradient_clip_val": 1, "log_every_n_steps": 1},
        }
    )  # fmt: skip
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def test_a_good_config_passes() -> None:
    validate(config())
    validate(config(data__image_size=[64, 128]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fold": 9}, ["`fold` should be in [0, 3)", "`fold = 9`", "num_folds"]),
        ({"fold": -1}, ["`fold`", "greater than or equal to 0", "-1"]),
        ({"seed": "many"}, ["`seed`", "many"]),
        ({"monitor_mode": "up"}, ["`monitor_mode`", "'max' or 'min'", "up"]),
        ({"data__image_size": 130}, ["multiple of 32", "130", "128 and 160"]),
        ({"data__image_size": [128, 100]}, ["multiple of 32", "96 and 128"]),
        ({"data__batch_size": 0}, ["`data.batch_size`", "greater than or equal to 1"]),
        ({"trainer__max_epochs": 0}, ["`trainer.max_epochs`", "greater than or equal to 1"]),
        ({"trainer__accumulate_grad_batches": 0}, ["`trainer.accumulate_grad_batches`", "greater than or equal to 1"]),
        ({"data__root": "???"}, ["`data.root` should be chosen", "data.root="]),
    ],
)
def test_a_bad_value_is_named_with_its_rule(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config(**changes))
    for word in words:
        assert word in str(caught.value)


def test_all_findings_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"fold.*image_size"):
        validate(config(fold=3, data__image_size=33))


@pytest.mark.parametrize(("size", "nearest"), [(1, (32, 64)), (31, (32, 64)), (97, (96, 128))])
def test_nearest_multiples_are_never_zero(size: int, nearest: tuple[int, int]) -> None:
    assert nearest_multiples(size, 32) == nearest


def test_the_command_line_imports_no_torch() -> None:
    code = "import sys, hsl.cli, hsl.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("inference", [{"window": 256}, {"predictor": {"window": 256}}])
def test_a_window_slides_over_pictures_at_their_own_size(inference: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"`data.evaluation_size` should be source"):
        validate(config(inference=inference))
    cfg: Any = config(inference=inference)
    cfg.data.evaluation_size = "source"
    validate(cfg)
    cfg.encoder.size_multiple = 96
    cfg.data.image_size = 192
    with pytest.raises(ConfigError, match=r"`inference.window` should be a multiple of 96.* 192 and 288"):
        validate(cfg)
