"""How much memory a call takes beyond what was there before."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


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
