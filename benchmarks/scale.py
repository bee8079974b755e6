"""What a training on several machines sends, computed on paper: ``python -m benchmarks.scale docs/scale.md``.

Parameters and operations are counted in the networks as they are built; speeds are assumptions, named below.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.utils.flop_counter import FlopCounterMode

from hsl.cli import conf_dir

SIZE = 384
DEVICES, NODES = 16, 2
BATCH = 8
"""Pictures of a device in a step."""
SUSTAINED = 100e12
"""Operations per second of a device in bf16, assumed: an eighth of what large matrix products reach on an H200."""
LINKS = {"10 Gbit/s": 10e9 / 8, "25 Gbit/s": 25e9 / 8, "100 Gbit/s": 100e9 / 8, "NVLink": 450e9}
"""Bytes per second and direction of the one link of a node; NVLink 4: between the devices of one node."""
SHARE = 0.1
ACCUMULATED = "25 Gbit/s"
START, END = "<!-- computed by benchmarks/scale.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Counted:
    """A network: its parameters, and the operations of the forward pass of one picture (a multiply-add is two)."""

    name: str
    parameters: int
    operations: int


def count(name: str) -> Counted:
    """Build the network of an encoder as `hsl profile` does, and count; nothing is computed."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("profile", [f"encoder={name}", f"data.image_size={SIZE}", "name=scale"])
    network = instantiate(cfg.network).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, SIZE, SIZE, device="meta"))
    return Counted(name, sum(one.numel() for one in network.parameters()), int(counter.get_total_flops()))


def bytes_sent(parameters: int, devices: int = DEVICES) -> float:
    """Bytes that each link of a ring carries per direction in an all-reduce of float32 gradients.

    Example:
        >>> bytes_sent(1000, devices=2)
        4000.0
    """
    return 2 * (devices - 1) / devices * 4 * parameters


def step_seconds(operations: int) -> float:
    """Forward and backward pass of a device's batch: three times the forward pass."""
    return 3 * operations * BATCH / SUSTAINED


def reduce_share(sent: float, bandwidth: float, step: float, accumulated: int = 1) -> float:
    """Share of an optimizer step that is all-reduce, where nothing of it is hidden behind the backward pass.

    Example:
        >>> reduce_share(1e9, 1e9, 1.0), reduce_share(1e9, 1e9, 1.0, accumulated=9)
        (0.5, 0.1)
    """
    seconds = sent / bandwidth
    return seconds / (seconds + accumulated * step)


def accumulation(sent: float, bandwidth: float, step: float, share: float = SHARE) -> int:
    """The fewest batches per optimizer step with which the all-reduce is at most this share.

    Example:
        >>> accumulation(1e9, 1e9, 1.0)
        9
    """
    return max(1, math.ceil(round((1 - share) / share * sent / bandwidth / step, 9)))


def row(one: Counted) -> str:
    """A line of the table."""
    sent, step = bytes_sent(one.parameters), step_seconds(one.operations)
    shares = [f"{100 * reduce_share(sent, bandwidth, step):.0f} %" for bandwidth in LINKS.values()]
    rate = DEVICES * BATCH / step
    cells = [
        f"`{one.name}`", f"{one.parameters / 1e6:.1f} M", f"{one.operations / 1e9:.0f}", f"{sent / 1e6:.0f}",
        f"{1e3 * step:.1f}", *shares, str(accumulation(sent, LINKS[ACCUMULATED], step)), f"{rate:.0f}",
        f"{rate * 3 * SIZE**2 / 1e9:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def table(counted: list[Counted]) -> str:
    """The table of docs/scale.md."""
    head = [
        "encoder", "parameters", "GFLOP", "MB sent", "ms per step", *LINKS, f"batches for {SHARE:.0%} at {ACCUMULATED}",
        "pictures/s", "GB/s",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *map(row, sorted(counted, key=lambda one: one.parameters))])


def with_table(text: str, counted: list[Counted]) -> str:
    """A page with its table renewed."""
    before, rest = text.split(START)
    return f"{before}{START}\n{table(counted)}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    """Renew the table of the page that is named."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        names = list(compose("sweep_plan").encoders)
    path, counted = Path(sys.argv[1]), []
    for name in names:
        counted.append(count(name))
        print(counted[-1], flush=True)
    path.write_text(with_table(path.read_text(encoding="utf8"), counted), encoding="utf8")


if __name__ == "__main__":
    main()
