"""Where members look: as their networks do, by the fold that held the picture out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from tests.verbs._asserts import SMALL, only_run

from hsl.cli import conf_dir
from hsl.config.targets import named_targets
from hsl.run_folder.layout import best_checkpoint
from hsl.run_folder.provenance import read_provenance
from hsl.run_folder.run import read_run
from hsl.verbs.ensemble.member_rows import RowSettings, open_data
from hsl.verbs.ensemble.members import Member
from hsl.verbs.ensemble.planning.attention import mean_attention
from hsl.verbs.opening.building import load_checkpoint_weights, rebuild_task
from hsl.verbs.train.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*",
)  # fmt: skip


def test_the_maps_are_those_of_the_encoder(tiny: Callable[..., DictConfig], tmp_path: Path) -> None:
    overrides = ("task=classifier", "loss=image_ce", "data.image_labels=label", "monitor=val/accuracy")
    train(tiny(*overrides, *SMALL, "trainer.max_epochs=1"))
    run, settings = only_run(tmp_path), RowSettings(allowed=named_targets(conf_dir()))
    member = Member("a", {0: read_run(run)})
    found = mean_attention([member, member], settings)
    cfg, data = open_data(run, settings)
    assert sorted(found) == list(data.prepared.parts["val"])
    task = rebuild_task(cfg, read_provenance(run))
    load_checkpoint_weights(task, best_checkpoint(run))
    for batch in data.val_dataloader():
        images = data.on_after_batch_transfer(batch, 0)["image"]
        with torch.inference_mode():
            features = task.eval().network.encoder(images)[-1]
        for name, one in zip(batch["id"], features.square().mean(1), strict=True):
            np.testing.assert_allclose(found[name], one / one.norm(), rtol=1e-4, atol=1e-6)
