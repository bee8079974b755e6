"""What a run may ask of a Ray cluster, and the way to it."""

import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import OmegaConf

from hsl.errors import ConfigError, needs

KEYS = "hydra.launcher"
CONNECT_S = 5.0
OBJECTS_BYTES = 100_000_000  # nothing large travels through Ray


@dataclass(frozen=True)
class Settings:
    """The keys of `hydra.launcher`.

    Attributes:
        address: ``auto``, ``HOST:PORT``, or ``None`` for a Ray of this machine that ends with the sweep.
        num_cpus: that one run takes; as many threads.
        num_gpus: that one run takes and sees.
        memory_gb: GiB that one run takes; ``None``: they are not counted.
        resources: further ones, by name.
        max_starts: how often a run is started whose machine dies.
        other_code: whether machines may have another code than this one.
    """

    address: str | None
    num_cpus: float
    num_gpus: float
    memory_gb: float | None
    resources: Mapping[str, float]
    max_starts: int
    other_code: bool

    @property
    def wanted(self) -> dict[str, float]:
        """What one machine has to have for a run, by Ray's names."""
        memory = {} if self.memory_gb is None else {"memory": self.memory_gb * 2**30}
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, **memory, **self.resources}
        return {name: number for name, number in wanted.items() if number}

    @property
    def options(self) -> dict[str, Any]:
        """Those of Ray's task for one run: in a process of its own, and never begun again without our knowledge."""
        memory = {} if self.memory_gb is None else {"memory": int(self.memory_gb * 2**30)}
        return {
            "num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "resources": dict(self.resources), **memory,
            "max_calls": 1, "max_retries": 0, "scheduling_strategy": "SPREAD",
        }  # fmt: skip


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Those of a config.

    Raises:
        ConfigError: ``ray`` is not installed, or a value breaks a rule; all findings at once.
    """
    needs("`hydra/launcher=ray`", ["ray"], "ray")
    values: dict[str, Any] = {
        key: OmegaConf.to_container(one) if OmegaConf.is_config(one) else one for key, one in given.items()
    }
    resources = values["resources"]
    amounts = {f"{KEYS}.{key}": values[key] for key in ("num_cpus", "num_gpus")}
    if values["memory_gb"] is not None:
        amounts[f"{KEYS}.memory_gb"] = values["memory_gb"]
    if isinstance(resources, dict):
        amounts |= {f"{KEYS}.resources.{name}": number for name, number in resources.items()}
    findings = [
        f"`{key}` should be a number from 0, whole above 1. Found `{number}`."
        for key, number in amounts.items()
        if not _counts(number, whole=not key.endswith("memory_gb"))
    ]
    if not isinstance(resources, dict):
        findings.append(f"`{KEYS}.resources` should be names and numbers, `{{name: 1}}`. Found `{resources}`.")
    starts = values["max_starts"]
    if not isinstance(starts, int) or isinstance(starts, bool) or starts < 1:
        findings.append(f"`{KEYS}.max_starts` should be a whole number from 1. Found `{starts}`.")
    if not isinstance(values["other_code"], bool):
        findings.append(f"`{KEYS}.other_code` should be true or false. Found `{values['other_code']}`.")
    if values["address"] not in (None, "auto") and _host_and_port(values["address"]) is None:
        findings.append(f"`{KEYS}.address` should be null, auto or HOST:PORT. Found `{values['address']}`.")
    if findings:
        raise ConfigError(" ".join(findings))
    return Settings(**{one.name: values[one.name] for one in fields(Settings)})


def _counts(number: Any, whole: bool) -> bool:
    """Whether Ray can deal it out: parts of one, and whole ones."""
    known = isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < math.inf
    return known and (number <= 1 or not whole or number == int(number))


def _host_and_port(address: Any) -> tuple[str, int] | None:
    host, colon, port = str(address).rpartition(":")
    known = colon and host and "/" not in host and port.isdecimal() and int(port) < 2**16
    return (host, int(port)) if known else None


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Any]:
    """Ray, as long as it lasts; afterwards what was started here is ended.

    Raises:
        ConfigError: there is no cluster at the address, or it does not take this command.
    """
    place = _host_and_port(settings.address)
    if place is not None:
        _check_reachable(*place)
    ray, handlers = _import_quietly(), {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own = {} if settings.address else {"object_store_memory": OBJECTS_BYTES, "include_dashboard": False}
    try:
        ray.init(address=settings.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"`{KEYS}.address` should be a cluster that this machine is part of, of the same Ray and Python. Found "
            f"`{settings.address}`: {reason[:300]} Join it with `ray start --address=HOST:PORT`, or set "
            f"`{KEYS}.address=null` for a Ray of this machine alone."
        ) from error
    for number, handler in handlers.items():  # Ray has put its own in their place
        signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_quietly() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here tells nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # num_gpus=0 hides them
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _check_reachable(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"`{KEYS}.address` should be the head of a running cluster. Found `{host}:{port}`, which does not answer "
            f"({error}). Start it with `ray start --head`, mend the address, or set `{KEYS}.address=null` for a Ray of "
            "this machine alone."
        ) from error


def machines(ray: Any) -> list[dict[str, float]]:
    """What each living machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def lacking(settings: Settings, having: list[dict[str, float]]) -> str | None:
    """What no machine has of that which a run takes; ``None``: there is one with all of it.

    Ray itself would wait for such a machine without end.
    """
    wanted = settings.wanted
    if any(all(one.get(name, 0) >= number for name, number in wanted.items()) for one in having):
        return None
    most = {name: max((one.get(name, 0) for one in having), default=0) for name in wanted}
    found = "; ".join(
        f"{_key(name)} = {_amount(name, number)}, where the largest machine has {_amount(name, most[name])}"
        for name, number in wanted.items()
        if number > most[name]
    )
    together = ", ".join(f"{_key(name)} = {_amount(name, number)}" for name, number in wanted.items())
    return found or f"{together}, which no machine has together"


def _key(name: str) -> str:
    names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory_gb"}
    return f"{KEYS}.{names.get(name, f'resources.{name}')}"


def _amount(name: str, number: float) -> str:
    return f"{number / 2**30:.3g}" if name == "memory" else f"{number:g}"
