"""The checks before torch: ranges, types, rules between groups, and what a mistyped word was meant to be."""

import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hsl.config.mistyped import near_group, of_key, of_option, of_value
from hsl.config.validation import PROGRESS_BAR, REQUIRED_CALLBACKS, nearest_multiples, validate
from hsl.errors import ConfigError

NEEDED = {name: {"_target_": target} for name, target in zip(("best", "scores"), REQUIRED_CALLBACKS, strict=True)}
CONFIG = {
    "decoder": {"_target_": "x", "channels": 1},
    "optimizer": {"lr": 1.0, "lr_by_module": None},
    "phases": None,
    "data": {"batch_size": 4, "labels": None},
    "plan": {"A": {"overrides": {"trainer": {"max_epochs": 3}}}, "B": {"overrides": {"trainer.max_epochs": 3}}},
    "run": "x",
}
GROUPS = ("decoder", "data", "data/labels", "data/split", "phases")


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
        ({"monitor_mode": "up"}, ["`monitor_mode`", "'auto', 'max' or 'min'", "up"]),
        ({"data__image_size": 130}, ["multiple of 32", "130", "128 and 160"]),
        ({"data__image_size": [128, 100]}, ["multiple of 32", "96 and 128"]),
        ({"data__batch_size": 0}, ["`data.batch_size`", "greater than or equal to 1"]),
        ({"trainer__max_epochs": 0}, ["`trainer.max_epochs`", "greater than or equal to 1"]),
        ({"trainer__accumulate_grad_batches": 0}, ["`trainer.accumulate_grad_batches`", "greater than or equal to 1"]),
        ({"data__root": "???"}, ["`data.root` should be chosen", "data.root="]),
        ({"data__root": "${data.rot}"}, ["`data.root`", "`${data.rot}`, which does not exist", "--cfg job"]),
        (
            {"data__root": "${oc.env:HSL_NOT_SET}"},
            ["`data.root`", "variable HSL_NOT_SET is not set", "HSL_NOT_SET,VALUE"],
        ),
        ({"data__root": "a/${oc.env:HSL_NOT_SET}/b"}, ["`data.root`", "variable HSL_NOT_SET is not set"]),
        ({"data__root": "${dream:1}"}, ["`data.root`", "interpolation type dream"]),
        ({"data__root": "${data.evaluation_size}", "data__evaluation_size": "???"}, ["`data.evaluation_size=...`"]),
        ({"data__batch_size": "${oc.env:HOME}"}, ["`data.batch_size`", "valid integer", "That is text", "$NAME"]),
        ({"fold": "${oc.decode:'[1'}"}, ["`fold`", "can be resolved"]),
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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("check_val_every_n_epoch", 10, ["at most `trainer.max_epochs`, 9", "`trainer.check_val_every_n_epoch = 10`"]),
        ("min_epochs", 10, ["at most `trainer.max_epochs`, 9", "`trainer.min_epochs = 10`"]),
        ("min_epochs", -1, ["`trainer.min_epochs`", "greater than or equal to 0"]),
        ("max_steps", 0, ["`trainer.max_steps = 0`"]),
        ("max_steps", -2, ["`trainer.max_steps`", "-2"]),
        ("max_time", "00:00:00:00", ["`trainer.max_time` should be text, DD:HH:MM:SS"]),
        ("max_time", {"minutes": -1}, ["`trainer.max_time`", "minutes"]),
        ("num_sanity_val_steps", -3, ["`trainer.num_sanity_val_steps`", "-3"]),
        ("fast_dev_run", True, ["saves no checkpoint", "`trainer.fast_dev_run = True`", "`trainer.max_epochs=1`"]),
        ("fast_dev_run", 1, ["`trainer.fast_dev_run = 1`"]),
        ("fast_dev_run", 5, ["`trainer.fast_dev_run = 5`"]),
        ("barebones", True, ["`trainer.barebones = True`"]),
        ("enable_checkpointing", False, ["`trainer.enable_checkpointing = False`"]),
        ("overfit_batches", 1, ["validates on the pictures that it trains on"]),
        ("overfit_batches", 0.1, ["validates on the pictures that it trains on"]),
        ("val_check_interval", 0.5, ["whole epochs", "`trainer.check_val_every_n_epoch`"]),
        ("val_check_interval", 1, ["`trainer.val_check_interval = 1`"]),  # every batch; 1.0 is every epoch
        ("limit_train_batches", 0, ["`trainer.limit_train_batches = 0`", "at least 1"]),
        ("limit_train_batches", 0.0, ["`trainer.limit_train_batches = 0.0`"]),
        ("limit_train_batches", -1, ["`trainer.limit_train_batches = -1`"]),
        ("limit_val_batches", 0, ["`trainer.limit_val_batches = 0`"]),
        ("limit_val_batches", 1.5, ["`trainer.limit_val_batches = 1.5`"]),
        ("limit_val_batches", True, ["`trainer.limit_val_batches = True`"]),
        ("limit_test_batches", 1, ["pass for those of all"]),
        ("limit_test_batches", 0.5, ["pass for those of all"]),
        ("limit_predict_batches", 3, ["predicts nothing"]),
        ("reload_dataloaders_every_n_epochs", 1, ["`trainer.reload_dataloaders_every_n_epochs = 1`"]),
        ("logger", True, ["`logger=tensorboard`"]),
        ("callbacks", [], ["`callbacks=`"]),
        ("default_root_dir", "x", ["`output_root`"]),
        ("precision", "bf16-true", ["32-true, bf16-mixed, 16-mixed", "`trainer.precision = bf16-true`"]),
        ("precision", "16-true", ["`trainer.precision = 16-true`"]),
        ("precision", "64-true", ["`trainer.precision = 64-true`"]),
        ("precision", 64, ["`trainer.precision = 64`"]),
        ("precision", "transformer-engine", ["`trainer.precision = transformer-engine`"]),
        ("precision", "transformer-engine-float16", ["float32, which other weights do not take"]),
    ],
)
def test_what_breaks_the_promise_of_a_run_is_refused(key: str, value: object, words: list[str]) -> None:
    cfg: Any = config()
    OmegaConf.update(cfg, f"trainer.{key}", value)
    with pytest.raises(ConfigError) as caught:
        validate(cfg)
    for word in (f"`trainer.{key}`", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fast_dev_run", False), ("fast_dev_run", 0), ("overfit_batches", 0.0), ("overfit_batches", 0),
        ("val_check_interval", 1.0), ("limit_train_batches", 1),
        ("limit_train_batches", 1.0), ("limit_val_batches", 0.5), ("limit_val_batches", None),
        ("limit_test_batches", 1.0), ("min_epochs", 9), ("max_steps", -1),
        ("max_steps", 4), ("num_sanity_val_steps", 0), ("num_sanity_val_steps", -1), ("check_val_every_n_epoch", 9),
        ("profiler", "simple"), ("detect_anomaly", True), ("max_time", "00:01:00:00"), ("enable_progress_bar", False),
        ("inference_mode", False),
        *(("precision", one) for one in ("auto", 32, "32", "32-true", "bf16-mixed", "bf16", "16-mixed", 16, None)),
    ],
)  # fmt: skip
def test_what_does_not_is_left_alone(key: str, value: object) -> None:
    cfg: Any = config()
    OmegaConf.update(cfg, f"trainer.{key}", value)
    validate(cfg)


def test_a_progress_bar_that_is_off_and_on() -> None:
    cfg: Any = config()
    OmegaConf.update(cfg, "trainer.enable_progress_bar", False)
    cfg.callbacks = {**NEEDED, "bar": {"_target_": PROGRESS_BAR}}
    with pytest.raises(ConfigError, match=r"Set `callbacks.bar=null` too"):
        validate(cfg)
    cfg.callbacks.bar = None  # what the sentence says
    validate(cfg)


@pytest.mark.parametrize("name", ["best", "scores"])
@pytest.mark.parametrize("off", [True, False])
def test_callbacks_that_a_run_needs_are_known_by_what_they_call(name: str, off: bool) -> None:
    cfg: Any = config()
    cfg.callbacks = {**NEEDED, name: None} if off else {other: NEEDED[other] for other in NEEDED if other != name}
    with pytest.raises(ConfigError, match=f"`callbacks` should hold a `{NEEDED[name]['_target_']}`") as caught:
        validate(cfg)
    assert (f"Leave null away from `callbacks.{name}`" in str(caught.value)) == off
    cfg.callbacks.own = {"_target_": "mine.Callback"}  # of which nothing is known before it is imported
    validate(cfg)


@pytest.mark.parametrize(("size", "nearest"), [(1, (32, 64)), (31, (32, 64)), (97, (96, 128))])
def test_nearest_multiples_are_never_zero(size: int, nearest: tuple[int, int]) -> None:
    assert nearest_multiples(size, 32) == nearest


def test_the_command_line_imports_no_torch() -> None:
    code = "import sys, hsl.cli, hsl.config.validation; sys.exit('torch' in sys.modules)"
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


def test_a_stream_is_read_block_by_block() -> None:
    cfg = config()
    cfg.data.reader = {"streaming": True}
    cfg.data.sampling = {"_target_": "hsl.data.loading.sampling.RareClasses"}
    with pytest.raises(ConfigError, match=r"`data.reader.streaming` should be false .* Choose `data/sampling=shuffle`"):
        validate(cfg)
    for key, value in (("reader.streaming", False), ("sampling", None)):
        followed = cfg.copy()
        OmegaConf.update(followed, f"data.{key}", value)
        validate(followed)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("decdoer=fpn", "decoder"),
        ("~decdoer", "decoder"),
        ("decoder.chanels=3", "decoder.channels"),
        ("lr=1", "optimizer.lr"),
        ("batch_size=1", "data.batch_size"),
        ("rnu=x", "run"),
        ("data/splt=kfold", "data/split"),
        ("plan.a.overrides.trainer.max_epochs=4", "plan.A.overrides.trainer.max_epochs"),
        ("plan.A.overrides.trainer.max_epoch=4", "plan.A.overrides.trainer.max_epochs"),
        ("plan.B.overrides.trainer.max_epochs=4", None),  # that is in the file, in a way that cannot be typed
        ("plan.A.overrides.data.batch_size=4", None),
        ("wholly.other=4", None),
    ],
)
def test_keys(word: str, meant: str | None) -> None:
    key = word.lstrip("~").partition("=")[0]
    said = of_key(key, word, CONFIG, GROUPS)
    assert re.findall(r"Did you mean `(.*?)`\?", said) == ([meant] if meant else []), said
    assert f"`{key}` should be" in said
    assert f"Found `{word}`" in said


def test_what_a_part_takes_but_does_not_list_is_added() -> None:
    assert "added by `+decoder.dropout=0`" in of_key("decoder.dropout", "decoder.dropout=0", CONFIG, GROUPS)
    assert "added" not in of_key("decoder.dropout", "~decoder.dropout", CONFIG, GROUPS)
    assert "added" not in of_key("dropout", "dropout=0", CONFIG, GROUPS)


def test_a_group_that_is_off() -> None:
    for key, group in {"phases.A.freeze": "phases", "data.labels.folder": "data/labels"}.items():
        assert f"needs `{group}`, which is off. Found `{key}=x`. Choose" in of_key(key, f"{key}=x", CONFIG, GROUPS)


def test_options_and_groups() -> None:
    assert of_option("decoder", "fpm", ["fpn", "unet"]) == (
        "`decoder` should be one of fpn, unet. Found `decoder=fpm`. Did you mean `fpn`?"
    )
    assert of_option("decoder", "x", ["fpn"]).endswith("Found `decoder=x`.")
    assert (near_group("decdoer", GROUPS), near_group("zzz", GROUPS)) == (" Did you mean `decoder`?", "")


@pytest.mark.parametrize(
    "value", ["a=b", "a(1)", "a{b", "/x/ü", "[a", '"a', "it's", "a&b", 'ü"', "a'b'", "ü\\", 'ü\\"x']
)
def test_a_value_in_the_quotes_that_are_advised(value: str) -> None:
    parser = OverridesParser.create()
    with pytest.raises(HydraException):
        parser.parse_override(f"data.root={value}")
    said = of_value(f"data.root={value}")
    (typed,) = shlex.split(said[said.index(" Write ") + 7 : -1])
    assert parser.parse_override(typed).value() == value


def test_a_word_without_a_value() -> None:
    assert of_value("a b") == (
        "Each word should be `key=value`. Found `a b`. A blank in a value needs quotes of the shell."
    )
