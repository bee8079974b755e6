"""What several processes cannot do, told before anything is read."""

from collections.abc import Mapping
from typing import Any

SHARDED = "hsl.tasks.sharding.FullyShardedStrategy"
WHOLE_PARAMETERS = {
    "hsl.callbacks.oom_backoff.OomBackoff": "runs a failed batch again in each process",
    "hsl.callbacks.rollback_gate.RollbackGate": "puts whole parameters back",
}
"""Callbacks that do not go with parameters that are dealt out, and why."""
FIXED = "hsl.weighting.scalar.Fixed"


def process_findings(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with the number of processes, where the config says it, and with parameters that are dealt out.

    Args:
        content: of a training.

    Example:
        >>> process_findings({"trainer": {"devices": 3}, "data": {"batch_size": 8}})[0][-24:]
        'Set `data.batch_size=9`.'
    """
    trainer, batch = content["trainer"], content["data"]["batch_size"]
    numbers = [trainer.get(key, 1) for key in ("devices", "num_nodes")]
    found = []
    if all(type(number) is int and number > 0 for number in numbers) and (processes := numbers[0] * numbers[1]) > 1:
        if content.get("phases"):
            found.append(
                f"`trainer.devices` should be 1 in a run of phases. Found {processes} processes. Run the folds of a "
                "cross-validation beside each other instead."
            )
        if batch % processes:
            found.append(
                f"`data.batch_size` is shared by all processes and should be a multiple of their number, {processes}. "
                f"Found `data.batch_size = {batch}`. Set `data.batch_size={-(-batch // processes) * processes}`."
            )
    strategy = trainer.get("strategy")
    if isinstance(strategy, Mapping) and strategy.get("_target_") == SHARDED:
        found += _sharded_findings(content)
    return found


def _sharded_findings(content: Mapping[str, Any]) -> list[str]:
    found = [
        f"`callbacks.{name}` should be null with `trainer=fsdp`: it {WHOLE_PARAMETERS[target]}. Found it. Set "
        f"`callbacks.{name}=null`, or `trainer=ddp`."
        for name, node in (content.get("callbacks") or {}).items()
        if node is not None and (target := node.get("_target_")) in WHOLE_PARAMETERS
    ]
    if (method := content["weighting"].get("_target_")) != FIXED:
        found.append(
            "`weighting` should be fixed with `trainer=fsdp`: the others ask for the gradient of each objective, or "
            f"learn by themselves. Found `{method}`. Set `weighting=fixed`, or `trainer=ddp`."
        )
    return found
