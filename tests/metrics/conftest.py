"""Two real processes for the reduction of metric states."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

TEMPLATE = """
import sys, torch, torch.distributed
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{{folder}}/store", rank=rank, world_size=2)
{body}
torch.save(result, f"{{folder}}/{{rank}}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def two_processes(tmp_path: Path) -> Callable[[str], list[Any]]:
    """Run code in two gloo processes; it reads ``rank`` and leaves ``result``. Returns both results."""

    def run(body: str) -> list[Any]:
        code = TEMPLATE.format(body=body)
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
            for rank in range(2)
        ]
        errors = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
        return [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    return run
