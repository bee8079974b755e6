"""`hsl label review`: the spot check of pseudo-labels in a browser."""

import errno
import secrets
import signal
import socket
import webbrowser
from pathlib import Path

import uvicorn
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from hsl.data.labels.review import Settings
from hsl.errors import ConfigError
from hsl.pseudo_labels.review_page import LOCAL_HOSTS, build_app
from hsl.pseudo_labels.spot_check import begin, go_on
from hsl.reports.plots.palette import hex_colour
from hsl.signals import Interrupted
from hsl.terminal import say


def review(cfg: DictConfig) -> None:
    """Serve the review page of a folder of pseudo-labels until it is interrupted; then print where the review stands.

    Raises:
        ConfigError: A setting breaks a rule, the address cannot be had, or the review was begun with other settings.
        DataError: The folder holds no labels, or a review of others.
    """
    labels, begun = begin(Path(cfg.labels), _settings(cfg))
    token = None if cfg.host in LOCAL_HOSTS else secrets.token_urlsafe(24)
    app = build_app(labels, begun, [hex_colour(i) for i in range(len(labels.classes))], token)
    with listening(cfg.host, cfg.port) as opened:
        shown = socket.gethostname() if cfg.host in ("0.0.0.0", "::") else cfg.host
        shown = f"[{shown}]" if ":" in shown else shown
        url = f"http://{shown}:{opened.getsockname()[1]}/" + (f"?token={token}" if token else "")
        left = list(begun.answers.values()).count(None)
        say(f"{left} of {len(begun.answers)} pictures to judge: {url}")
        say("Ctrl+C ends it; every answer is kept.")
        if cfg.open_browser:
            webbrowser.open(url)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        try:
            server.run(sockets=[opened])
        except (KeyboardInterrupt, Interrupted) as end:
            if isinstance(end, Interrupted) and end.number != signal.SIGINT:
                raise
    _, now = go_on(labels.folder)
    say("passed" if now.verdict["passed"] else "not passed: " + " ".join(now.verdict["reasons"]))


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that the port is ours before it is printed.

    Raises:
        ConfigError: The port is taken or not allowed, or the host is not this machine.
    """
    if not (isinstance(port, int) and 0 <= port <= 65535):
        raise ConfigError(f"`port` should be in [0, 65535]. Found `port = {port}`. 0 takes any free one.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family)
        # inherited by each connection: asyncio sets it only where the protocol is named, and without it the body of an
        # answer waits 40 ms for the receipt of its head
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            found = f"`port` should be free. Found `port = {port}`, which is in use"
        else:
            found = f"`host` and `port` should be an address of this machine. Found `{host}:{port}`: {error}"
        raise ConfigError(f"{found}. Choose another, or `port=0` for any free one.") from error


def _settings(cfg: DictConfig) -> Settings:
    values = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(Settings.model_fields)))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        places = [(".".join(map(str, one["loc"])), one) for one in error.errors()]
        findings = [f"`{place}`: {one['msg']}. Found `{place} = {one['input']}`." for place, one in places]
        raise ConfigError(" ".join(findings)) from None
