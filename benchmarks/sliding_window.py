"""Sliding windows over a picture of 1024x2048 with 40 classes, against `monai.inferers.sliding_window_inference`.

Same window, overlap, Gaussian weights, windows per batch and network; the peer keeps everything on the device, its
default. Rounds alternate and medians count. On a GPU ours stitches on the host. Without one the CPU takes its place:
time is that of the whole result, and for memory ours stitches to the device ``meta``, which has none, so that what is
left is what an accelerator would hold. For comparison: MONAI told to stitch off the device.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from hsl.heads import Head
from hsl.inference.sliding_window import SlidingWindow

CLASSES, HEIGHT, WIDTH = 40, 1024, 2048
WINDOW, STRIDE, WINDOWS_PER_BATCH = 512, 341, 4
ROUNDS = 5
TIME_GOAL, MEMORY_GOAL, TOLERANCE = 1.0, 1 / 0.6, 1e-5  # not slower; at most 0.6 of the memory


class Network(nn.Module):
    """Two convolutions at a quarter of the size: so small that blending is a good part of the time."""

    known_heads = {"segmentation": Head("segmentation", "dense")}  # noqa: RUF012
    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 16, 4, stride=4)
        self.head = nn.Conv2d(16, CLASSES, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.encoder(images).relu())
        return {"segmentation": F.interpolate(logits, scale_factor=4.0, mode="bilinear")}


@torch.inference_mode()
def run() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Network().eval().to(device)
    images = torch.randn(1, 3, HEIGHT, WIDTH, device=device)

    def separate(windows: Tensor) -> dict[str, Tensor]:
        return {head: logits.clone() for head, logits in network(windows).items()}

    def ours(stitch_device: str = "cpu") -> Tensor:
        return SlidingWindow(WINDOW, STRIDE, WINDOWS_PER_BATCH, stitch_device)(network, images)["segmentation"]

    def peer(stitch_device: str | None = None) -> Tensor:
        # stitched elsewhere, each head has its own copy: MONAI multiplies the network's tensors in place
        called = network if stitch_device is None else separate
        found: Any = sliding_window_inference(
            images, WINDOW, WINDOWS_PER_BATCH, called, 1 - STRIDE / WINDOW, mode="gaussian", device=stitch_device
        )
        result: Tensor = found["segmentation"]
        return result

    elsewhere = "cpu" if device == "cuda" else "meta"
    difference = float((ours() - peer().cpu()).abs().max())
    seconds = in_turn(ours, peer, lambda: peer("cpu"))
    memory = [peak_mib(one, device) for one in (lambda: ours(elsewhere), peer, lambda: peer(elsewhere))]
    rows = [
        ("time of MONAI by ours", "seconds", seconds, seconds[1] / seconds[0], TIME_GOAL),
        ("MONAI's peak memory by ours", "MiB on the device", memory, memory[1] / memory[0], MEMORY_GOAL),
    ]
    return [
        {
            "name": f"sliding_window: {name}",
            "sizes": {
                "height_width": [HEIGHT, WIDTH],
                "classes": CLASSES,
                "window_stride": [WINDOW, STRIDE],
                "windows_per_batch": WINDOWS_PER_BATCH,
                "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                "largest_difference": difference,
                "monai_stitched_off_the_device": round(found[2], 3),
                "unit": unit,
            },
            "versions": {name: version(name) for name in ("monai", "torch")},
            "ours": round(found[0], 3),
            "peer": round(found[1], 3),
            "ratio": ratio,
            "goal": goal,
            "holds": ratio >= goal and difference <= TOLERANCE,
        }
        for name, unit, found, ratio, goal in rows
    ]


def in_turn(*calls: Callable[[], Tensor]) -> list[float]:
    """Median seconds of each, all called once per round."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for spent, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


def peak_mib(call: Callable[[], Any], device: str) -> float:
    """Most memory allocated on the device during a call, beyond what was there before."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf8"))["traceEvents"]
    allocations = [event["args"] for event in events if event.get("name") == "[memory]"]
    before = allocations[0]["Total Allocated"] - allocations[0]["Bytes"]
    return float(max(each["Total Allocated"] for each in allocations) - before) / 2**20
