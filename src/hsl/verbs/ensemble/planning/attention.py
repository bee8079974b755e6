"""Where the members of an ensemble look in the pictures that they held out, for attention transfer."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hsl.data.files.decoding import Decoding
from hsl.models.heads import AttentionHead
from hsl.run_folder.layout import best_checkpoint
from hsl.run_folder.provenance import read_provenance
from hsl.verbs.ensemble.member_rows import RowSettings, open_data
from hsl.verbs.ensemble.members import Member
from hsl.verbs.opening.building import load_checkpoint_weights, rebuild_task
from hsl.verbs.opening.opening import building_from


def mean_attention(members: Sequence[Member], settings: RowSettings) -> dict[str, NDArray[np.float32]]:
    """Id -> ``(h, w)``: the mean of the members' attention maps, each of length 1, by the fold that held it out.

    Members of another grid than the first are averaged over its cells, or repeated.

    Raises:
        ConfigError: see `hsl.verbs.ensemble.member_rows.open_data`.
    """
    total: dict[str, Tensor] = {}
    for member in members:
        for run in member.folders:
            for name, found in _attention_of(run, settings):
                grid = total[name].shape if name in total else found.shape
                alike = F.interpolate(found[None, None], size=tuple(grid), mode="area")[0, 0]
                total[name] = total.get(name, torch.zeros(grid)) + alike / alike.norm().clamp_min(1e-12)
            gc.collect()  # one model in memory at a time
    return {name: (one / len(members)).numpy() for name, one in total.items()}


@torch.inference_mode()
def _attention_of(run: Path, settings: RowSettings) -> Iterator[tuple[str, Tensor]]:
    """The validation pictures of a run at the size of its training, as its encoder sees them."""
    cfg, data = open_data(run, settings)
    with building_from(run):
        task = rebuild_task(cfg, read_provenance(run))
    load_checkpoint_weights(task, best_checkpoint(run))
    task = task.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    prepared, look = data.prepared, AttentionHead()
    records = [prepared.catalogue.records[prepared.places[name]] for name in prepared.parts["val"]]
    for batch in data.predict_dataloader(records, Decoding.of(prepared.catalogue)):
        batch["image"] = batch["image"].to(task.device)
        images = data.on_after_batch_transfer(batch, 0)["image"]
        sized = F.interpolate(images, size=data.form.sides, mode="bilinear", antialias=True)
        yield from zip(batch["id"], look(cast(Any, task.network).encoder(sized)[-1])[:, 0].cpu(), strict=True)
