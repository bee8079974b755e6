"""What several processes cannot do is told from the config alone, and each advice leads on."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from hsl.cli import conf_dir
from hsl.config.validation import validate
from hsl.errors import ConfigError


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", ["trainer.accelerator=cpu", "name=a", *words])


@pytest.mark.parametrize(
    ("words", "said", "way_out"),
    [
        (["trainer=ddp", "data.batch_size=5"], "a multiple of their number, 2", ["data.batch_size=6"]),
        (["trainer=ddp", "+trainer.num_nodes=2", "data.batch_size=6"], "number, 4", ["data.batch_size=8"]),
        (["trainer=ddp", "phases=dual_head"], "should be 1 in a run of phases", ["trainer.devices=1"]),
        (["trainer=fsdp", "weighting=pcgrad"], "`weighting` should be fixed", ["weighting=fixed"]),
        (["trainer=fsdp", "weighting=uncertainty"], "`weighting` should be fixed", ["trainer=ddp"]),
        (["trainer=fsdp", "callbacks=[default,oom_backoff]"], "`callbacks.oom_backoff` should be null",
         ["callbacks.oom_backoff=null"]),
    ],
)  # fmt: skip
def test_it_is_told_and_the_advice_leads_on(words: list[str], said: str, way_out: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(composed(*words))
    assert said in str(caught.value)
    kept = [word for word in words if word.split("=")[0] not in {one.split("=")[0] for one in way_out}]
    validate(composed(*kept, *way_out))


def test_one_process_and_as_many_as_there_are() -> None:
    validate(composed("data.batch_size=5"))
    validate(composed("trainer=ddp", "trainer.devices=auto", "data.batch_size=5"))
