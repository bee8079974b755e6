"""The server with a model that does what a picture says, asked over a socket. Nothing here needs an extra."""

import asyncio
import concurrent.futures
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.serving._inputs import (
    DIES,
    FAILS,
    FOREIGN,
    REFUSES,
    SLEEPS,
    TOKEN,
    FakeModel,
    Reply,
    Running,
    ask,
    opener,
    picture,
    png,
)

from hsl.errors import UserError
from hsl.serving import guard, uploads
from hsl.serving.dispatcher import Dispatcher, Limits

PNG = {"Content_Type": "image/png"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    running = Running(limits=Limits(upload_mb=0.1, megapixels=1.0))
    yield running.port
    running.stop()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """``run(**limits)``: a server of this test's own."""
    started: list[Running] = []

    def go(token: str | None = None, **limits: Any) -> Running:
        started.append(Running(limits=Limits(**limits), token=token))
        return started[-1]

    yield go
    for each in started:
        each.stop()


def slow(port: int, seed: int) -> Reply:
    return ask(port, "/predict", png(picture(SLEEPS, seed=seed)), **PNG)


def at_once(port: int, bodies: list[bytes]) -> list[Reply]:
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: ask(port, "/predict", body, **PNG), bodies))


def code(reply: Reply) -> tuple[int, str]:
    page = reply.json
    assert set(page) >= {"code", "error"}
    assert reply.headers["content-type"] == "application/json"
    assert "/home" not in page["error"]
    return reply.status, page["code"]


@pytest.mark.extras
def test_a_picture_is_answered_however_it_comes(port: int) -> None:
    image = picture(size=(40, 30))
    form = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--x\r\nContent-Disposition: form-data; '
    form += b'name="picture"; filename="<b>.png"\r\nContent-Type: image/png\r\n\r\n' + png(image) + b"\r\n--x--\r\n"
    replies = [
        ask(port, "/predict", png(image), **PNG),
        ask(port, "/predict", png(image), Content_Type="application/octet-stream"),
        ask(port, "/predict", form, Content_Type="multipart/form-data; boundary=x"),
    ]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert replies[0].json["image"] == {"width": 40, "height": 30}
    assert replies[0].headers["x-content-type-options"] == "nosniff"


def test_the_mask_is_that_of_the_model(port: int) -> None:
    image = picture(size=(40, 30))
    reply = ask(port, "/segment", png(image), **PNG)
    shares = json.loads(reply.headers["hsl-areas"])
    mask = FakeModel().predict(image).class_map("segmentation")
    assert shares["rust"] == pytest.approx((mask == 2).mean())
    runs = ask(port, "/segment?format=rle&head=segmentation", png(image), **PNG).json
    assert runs["areas"]["rust"]["pixels"] == (mask == 2).sum()


def test_exif_turns_the_picture(port: int) -> None:
    exif = Image.Exif()
    exif[274] = 6
    reply = ask(port, "/predict", png(picture(size=(40, 30)), "JPEG", exif=exif), **PNG)
    assert reply.json["image"] == {"width": 30, "height": 40}


@pytest.mark.parametrize(
    ("path", "body", "headers", "expected"),
    [
        ("/segment?format=tiff", png(picture()), {}, (422, "bad_parameter")),
        ("/segment?head=%3Cscript%3E", png(picture()), {}, (422, "unknown_head")),
        ("/predict?force=maybe", png(picture()), {}, (422, "bad_parameter")),
        ("/predict", b"", {}, (415, "not_a_picture")),
        ("/predict", b"<svg onload='x'/>", {}, (415, "not_a_picture")),
        ("/predict", b"PK\x03\x04" + bytes(100), {}, (415, "not_a_picture")),
        ("/predict", png(picture(size=(40, 30)))[:-40], {}, (422, "broken_picture")),
        ("/predict", bytes(200_000), {}, (413, "too_large")),
        ("/predict", png(np.zeros((1001, 1000), np.uint8)), {}, (413, "too_many_pixels")),
        ("/predict", b"{}", {"Content_Type": "application/json"}, (415, "unsupported_media_type")),
        ("/predict", png(picture(FAILS)), {}, (500, "model_failed")),
        ("/predict", png(picture(REFUSES)), {}, (422, "not_predictable")),
        ("/predict", png(picture(FOREIGN)), {}, (422, "not_accepted")),
        ("/predict", None, {}, (405, "method_not_allowed")),
        ("/no/such", None, {}, (404, "not_found")),
        ("/metrics", None, {}, (404, "not_found")),
        ("/predict", png(picture()), {"Host": "evil.example"}, (400, "unknown_host")),
        ("/predict", png(picture()), {"Origin": "http://evil.example"}, (403, "foreign_origin")),
    ],
)
def test_refusals_have_a_code(port: int, path: str, body: Any, headers: Any, expected: Any) -> None:
    reply = ask(port, path, body, **({**PNG, **headers} if body is not None else headers))
    assert code(reply) == expected
    assert ask(port, "/predict", png(picture()), **PNG).status == 200


def test_force_answers_all_the_same(port: int) -> None:
    reply = ask(port, "/predict?force=1", png(picture(FOREIGN)), **PNG)
    assert (reply.status, reply.json["gate"]["accepted"]) == (200, False)


def test_the_page_and_the_model(port: int) -> None:
    page = ask(port, "/")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"http://" not in page.body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in page.body
    model = ask(port, "/model").json
    assert model["heads"]["segmentation"]["classes"] == ["ground", "leaf", "rust"]
    assert model["masks"] == "segmentation"
    described = ask(port, "/openapi.json").json
    assert set(described["paths"]) == {"/predict", "/segment", "/health", "/ready", "/model"}
    answer = described["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    assert answer["example"]["heads"]["segmentation"]["areas"]["rust"]["share"] == 0.01


def test_a_token_is_asked_for(run: Callable[..., Running]) -> None:
    port = run(token=TOKEN).port
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
        reply = ask(port, "/model", **given)
        assert code(reply) == (401, "no_token")
        assert reply.headers["www-authenticate"] == "Bearer"
    assert ask(port, "/model", Authorization=f"Bearer {TOKEN}").status == 200
    assert [ask(port, path).status for path in ("/health", "/ready", "/")] == [200, 200, 200]
    assert ask(port, "/predict", png(picture()), **PNG).status == 401


def test_a_worker_that_ends_is_replaced_and_one_picture_harms_no_other(run: Callable[..., Running]) -> None:
    running = run()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        lost = pool.submit(ask, running.port, "/predict", png(picture(SLEEPS, slowness=100)), **PNG)
        time.sleep(0.5)
        os.kill(running.dispatcher.pid or 0, signal.SIGKILL)
        assert code(lost.result()) == (503, "worker_lost")
    good = [png(picture(seed=seed)) for seed in range(6)]
    replies = at_once(running.port, [*good[:3], png(picture(DIES)), *good[3:]])
    assert [reply.status for reply in replies] == [200, 200, 200, 503, 200, 200, 200]
    assert code(replies[3]) == (503, "worker_lost")
    assert int(replies[3].headers["retry-after"]) > 0
    assert running.dispatcher.statistics.lost_workers in (2, 3)


def test_too_many_are_told_to_come_back(run: Callable[..., Running]) -> None:
    running = run(queue=2, batch=1)
    replies = at_once(running.port, [png(picture(SLEEPS, slowness=15, seed=seed)) for seed in range(9)])
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 429}
    assert 4 <= statuses.count(200) <= 6
    refused = next(reply for reply in replies if reply.status == 429)
    assert code(refused) == (429, "busy")
    assert refused.headers["retry-after"] == "1"


def test_a_question_has_its_time(run: Callable[..., Running]) -> None:
    running = run(timeout_s=0.5)
    reply = ask(running.port, "/predict", png(picture(SLEEPS, slowness=200)), **PNG)
    assert code(reply) == (504, "timeout")
    assert eventually(lambda: ask(running.port, "/ready").status == 200)  # the process that computed on was replaced


def test_batches_grow_with_the_load(run: Callable[..., Running]) -> None:
    running = run(batch=4)
    at_once(running.port, [png(picture(SLEEPS, slowness=10, seed=seed)) for seed in range(10)])
    counts = running.dispatcher.statistics
    assert counts.batched == 10
    assert counts.batches < 7


def test_reload_and_end_lose_nothing(run: Callable[..., Running]) -> None:
    running = run()
    first = running.dispatcher.pid
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(ask, running.port, "/predict", png(picture(SLEEPS, seed=seed)), **PNG) for seed in range(4)
        ]
        time.sleep(0.3)
        running.reload()
        assert running.dispatcher.pid != first
        asked += [
            pool.submit(ask, running.port, "/predict", png(picture(SLEEPS, seed=seed)), **PNG) for seed in range(4)
        ]
        running.dispatcher.open_model = opener("open_broken")
        running.reload()  # the one before answers on
        while running.server.server_state.total_requests < 8:
            time.sleep(0.01)
        running.server.should_exit = True
        assert [each.result().status for each in asked] == [200] * 8
    counts = running.dispatcher.statistics
    assert (counts.lost_workers, counts.reloads) == (0, 1)


@pytest.mark.parametrize("content", [b"", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Len"])
def test_who_says_nothing_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(guard, "SILENT_S", 0.3)
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(content)
        silent.settimeout(10)
        assert silent.recv(100) == b""


def test_who_sends_slowly_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOAD_S", 0.3)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(head + b"x")
        slow.settimeout(10)
        assert b" 408 " in slow.recv(2000).split(b"\r\n")[0]


def test_what_is_not_http_is_told_so(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as other:
        other.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        other.settimeout(10)
        content = b"".join(iter(lambda: other.recv(2000), b""))
        assert content.startswith(b"HTTP/1.1 400 ")
        assert b'"code": "bad_request"' in content


def test_pictures_that_come_at_one_time_are_bounded(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "HELD_MB", 0.001)
    assert code(ask(port, "/predict", bytes(5000), **PNG)) == (429, "busy")
    monkeypatch.undo()
    assert ask(port, "/predict", png(picture()), **PNG).status == 200


def test_a_model_that_cannot_be_opened_says_why() -> None:
    with pytest.raises(UserError, match="`weights` should be there"):
        asyncio.run(Dispatcher(opener("open_broken"), Limits()).start())


def eventually(check: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.1)
    return False
