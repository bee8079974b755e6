"""The page's server, asked over a socket as a browser or an intruder would."""

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from hsl.data.labels.review import Settings
from hsl.pseudo_labels.refine import Agreement, write_agreement
from hsl.pseudo_labels.review_page import LONGEST, build_app
from hsl.pseudo_labels.spot_check import begin, go_on

HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"
COLOURS = ["#000000", "#ff8000", "#0080ff"]
NAMES = ["p0", "p1", "odd #1 ü?%2e"]
JSON = {"Content-Type": "application/json"}
Answer = tuple[int, dict[str, str], bytes]


def make_labels(folder: Path, size: tuple[int, int] = (12, 8)) -> Path:
    """Three pictures of tier A with masks of background, both classes and uncertain pixels."""
    (folder / "labels" / "masks").mkdir(parents=True)
    rows = ""
    for i, name in enumerate(NAMES):
        Image.new("RGB", size, (200, 40 * i, 10)).save(folder / f"{i}.png")
        mask = np.zeros((size[1], size[0]), np.uint8)
        mask[0, :4] = (0, 1, 2, 255)
        Image.fromarray(mask).save(folder / "labels" / "masks" / f"{name}.png")
        rows += f"{name},rust,A,0.9,0.1,0.2,{i % 2},gradcam,{folder / f'{i}.png'}\n"
    (folder / "labels" / "labels.csv").write_text(HEAD + rows, encoding="utf8")
    page = {"format": 1, "data": "leaves <b>", "classes": ["ground", "leaf", "symptom"]}
    (folder / "labels" / "labels.json").write_text(json.dumps(page))
    return folder / "labels"


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """``serve(folder, token)``: the port of a server that runs until the test ends."""
    started = []

    def go(folder: Path, token: str | None = None) -> int:
        app = build_app(*begin(folder, Settings()), COLOURS, token)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        opened = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        started.append((server, thread, opened))
        while not server.started:
            time.sleep(0.01)
        return int(opened.getsockname()[1])

    yield go
    for server, thread, opened in started:
        server.should_exit = True
        thread.join()
        opened.close()


def ask(port: int, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    content = json.dumps(body) if isinstance(body, dict) else body
    connection.request(method, path, content, headers or (JSON if method == "POST" else {}))
    response = connection.getresponse()
    result = response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    connection.close()
    return result


def test_the_page_needs_nothing_from_elsewhere(serve: Callable[..., int], tmp_path: Path) -> None:
    status, headers, content = ask(serve(make_labels(tmp_path)), "/")
    page = content.decode()
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "leaves &lt;b&gt;" in page
    assert "leaves <b>" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page.split("<script>")[0]
    for name in ("leaf", "symptom", "uncertain", "#ff8000"):
        assert name in page


def test_nothing_else_is_served(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve(make_labels(tmp_path))
    for path in ("/docs", "/openapi.json", "/redoc", "/labels.csv", "/review.json", "//etc/passwd"):
        assert ask(port, path)[0] == 404, path


def test_the_state_names_the_pictures_and_not_where_they_lie(serve: Callable[..., int], tmp_path: Path) -> None:
    state = json.loads(ask(serve(make_labels(tmp_path)), "/state")[2])
    assert {item["id"] for item in state["items"]} == set(NAMES)
    assert all(set(item) == {"id", "label", "tier", "quality", "uncertain", "foreground", "rule_passed", "sources",
                             "agreement", "flagged"} for item in state["items"])  # fmt: skip
    assert state["verdicts"] == dict.fromkeys([item["id"] for item in state["items"]])
    assert state["verdict"]["left"] == 3
    assert state["settings"]["thresholds"] == {"A": 0.9, "B": 0.7}


@pytest.mark.parametrize("place", range(3))
def test_picture_and_overlay(serve: Callable[..., int], tmp_path: Path, place: int) -> None:
    port = serve(make_labels(tmp_path))
    name = ("p0", "p1", "odd%20%231%20%C3%BC%3F%252e")[place]
    status, headers, content = ask(port, f"/picture/{name}")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    shown = np.asarray(Image.open(io.BytesIO(content)), np.int64)
    assert shown.shape == (8, 12, 3)
    assert np.abs(shown - (200, 40 * place, 10)).max() <= 4
    status, headers, content = ask(port, f"/overlay/{name}")
    assert (status, headers["content-type"]) == (200, "image/png")
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels[0, :5].tolist() == [
        [0, 0, 0, 0], [255, 128, 0, 255], [0, 128, 255, 255], [217, 217, 217, 255], [0, 0, 0, 0]
    ]  # fmt: skip


def refined(folder: Path) -> Path:
    """The same labels as those of a round of refinement: the last picture disagrees most."""
    labels = make_labels(folder)
    first = folder / "first" / "masks"
    first.mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(np.full((8, 12), 2, np.uint8)).save(first / f"{name}.png")
    page = json.loads((labels / "labels.json").read_text()) | {"first": str(folder / "first")}
    (labels / "labels.json").write_text(json.dumps(page))
    write_agreement(
        labels,
        [Agreement(name, "rust", "B", "A", 0.9 - 0.3 * i, 0.1, i == 0, i > 0) for i, name in enumerate(NAMES)],
    )
    return labels


def test_the_largest_disagreements_come_first_and_are_shown_beside_the_first_label(
    serve: Callable[..., int], tmp_path: Path
) -> None:
    port = serve(refined(tmp_path))
    items = json.loads(ask(port, "/state")[2])["items"]
    assert [(item["id"], item["flagged"], item["agreement"]) for item in items] == [
        (NAMES[2], True, pytest.approx(0.3)), ("p1", True, 0.6), ("p0", False, 0.9)
    ]  # fmt: skip
    pixels = np.asarray(Image.open(io.BytesIO(ask(port, "/first/p1")[2])))
    assert (pixels == (0, 128, 255, 255)).all()
    assert ask(port, "/first/p9")[0] == 404


def test_labels_that_were_not_refined_have_no_first_ones(serve: Callable[..., int], tmp_path: Path) -> None:
    assert ask(serve(make_labels(tmp_path)), "/first/p0")[0] == 404


def test_a_large_picture_is_sent_smaller_with_its_mask(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve(make_labels(tmp_path, (2 * LONGEST, 3)))
    sizes = [Image.open(io.BytesIO(ask(port, f"/{kind}/p0")[2])).size for kind in ("picture", "overlay")]
    assert sizes == [(LONGEST, 2), (LONGEST, 2)]


OUTSIDE = [
    "p9", "", "../labels.json", "..%2flabels.json", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/etc/passwd", "%2fetc%2fpasswd",
    "..%5c..%5cetc", "p0%00", "masks/p0", "..", "%2e%2e", "p0.png", "%c0%ae%c0%ae%2fetc", "%252e%252e%252fetc",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["picture", "overlay"])
def test_a_path_outside_the_folder_is_refused(serve: Callable[..., int], tmp_path: Path, kind: str) -> None:
    port = serve(make_labels(tmp_path))
    for name in OUTSIDE:
        status, _, content = ask(port, f"/{kind}/{name}")
        assert status in (400, 404), name
        assert b"root:" not in content
        assert b"classes" not in content


def test_answers_are_kept_taken_back_and_judged(serve: Callable[..., int], tmp_path: Path) -> None:
    folder = make_labels(tmp_path)
    port = serve(folder)
    for left, name in zip((2, 1, 0), NAMES, strict=True):
        status, _, content = ask(port, "/answers", "POST", {"id": name, "verdict": "accept"})
        assert (status, json.loads(content)["verdict"]["left"]) == (200, left)
    assert json.loads(content)["verdict"]["passed"] is True
    ask(port, "/answers", "POST", {"id": "p0", "verdict": None})
    assert go_on(folder)[1].verdicts == {"p0": None, "p1": "accept", NAMES[2]: "accept"}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"id": "p0", "verdict": "fine"}, JSON, 422),
        ({"id": "p0"}, JSON, 422),
        ({"id": "p0", "verdict": "accept", "more": 1}, JSON, 422),
        ("no json", JSON, 422),
        ("", JSON, 422),
        ("[" * 9000, JSON, 422),
        ('{"id": NaN, "verdict": "accept"}', JSON, 422),
        ('{"id": "p0", "verdict": Infinity}', JSON, 422),
        ('{"id": "p0", "verdict": "accept", "more": NaN}', JSON, 422),
        (b'{"id": "\xff", "verdict": "accept"}', JSON, 422),
        ({"id": "p0" * 9000, "verdict": "accept"}, JSON, 413),
        ({"id": "p9", "verdict": "accept"}, JSON, 409),
        ({"id": "../p0", "verdict": "accept"}, JSON, 409),
        ({"id": "p0", "verdict": "accept"}, {"Content-Type": "text/plain"}, 415),
        ({"id": "p0", "verdict": "accept"}, {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"id": "p0", "verdict": "accept"}, {"X-Nothing": ""}, 415),
        ({"id": "p0", "verdict": "accept"}, JSON | {"Origin": "http://evil.example"}, 403),
        ({"id": "p0", "verdict": "accept"}, JSON | {"Origin": "null"}, 403),
        ({"id": "p0", "verdict": "accept"}, JSON | {"Host": "evil.example"}, 400),
    ],
)
def test_an_answer_that_is_none_changes_nothing(
    serve: Callable[..., int], tmp_path: Path, body: Any, headers: dict[str, str], status: int
) -> None:
    folder = make_labels(tmp_path)
    port = serve(folder)
    before = (folder / "review.json").read_bytes()
    found, _, content = ask(port, "/answers", "POST", body, headers)
    assert found == status
    assert status == 400 or json.loads(content)["error"].endswith(".")
    assert (folder / "review.json").read_bytes() == before


def test_an_answer_from_this_page_itself_is_kept(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve(make_labels(tmp_path))
    headers = JSON | {"Origin": f"http://127.0.0.1:{port}"}
    assert ask(port, "/answers", "POST", {"id": "p0", "verdict": "accept"}, headers)[0] == 200


@pytest.mark.parametrize("length", ["Content-Length: 1000000000000", "Transfer-Encoding: chunked"])
def test_an_answer_without_end_is_cut_off(serve: Callable[..., int], tmp_path: Path, length: str) -> None:
    port = serve(make_labels(tmp_path))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        head = f"POST /answers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        client.sendall(head.encode())
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n" if "chunked" in length else b" " * 4096
        with contextlib.suppress(ConnectionError):
            for _ in range(8):  # 32 kB of a body that goes on
                client.sendall(chunk)
        assert client.recv(1000).startswith(b"HTTP/1.1 413")
    assert ask(port, "/")[0] == 200


def test_answers_come_by_post_only(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve(make_labels(tmp_path))
    found = [ask(port, "/answers", method) for method in ("PUT", "DELETE", "GET")]
    assert [status for status, _, _ in found] == [405, 405, 405]
    assert json.loads(found[0][2]) == {"error": "`PUT /answers`: Method Not Allowed."}


HOSTS = {
    "127.0.0.1": 200, "localhost:80": 200, "[::1]:80": 200, "evil.example": 400, "127.0.0.1.evil.example": 400,
    "localhost.evil.example:80": 400, "192.168.0.1": 400,
}  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/state", "/picture/p0"])
def test_a_foreign_name_for_this_machine_is_refused(serve: Callable[..., int], tmp_path: Path, path: str) -> None:
    port = serve(make_labels(tmp_path))
    assert {host: ask(port, path, headers={"Host": host})[0] for host in HOSTS} == HOSTS


@pytest.mark.parametrize("path", ["/", "/state", "/picture/p0", "/overlay/p0", "/nowhere"])
def test_with_a_token_nothing_is_served_without_it(serve: Callable[..., int], tmp_path: Path, path: str) -> None:
    port = serve(make_labels(tmp_path), "s3cret")
    for given in ("", "?token=", "?token=s3cre", "?token=s3cret2", "?token=%C3%BC", "?Token=s3cret"):
        status, _, content = ask(port, path + given)
        assert status == 403
        assert b"should hold the token" in content
    assert ask(port, f"{path}?token=s3cret", headers={"Host": "lab.example"})[0] == (404 if path == "/nowhere" else 200)


def test_with_a_token_an_answer_needs_it_too(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve(make_labels(tmp_path), "s3cret")
    body = {"id": "p0", "verdict": "accept"}
    assert ask(port, "/answers", "POST", body)[0] == 403
    assert ask(port, "/answers?token=s3cret", "POST", body)[0] == 200


def test_labels_made_anew_meanwhile_are_said(serve: Callable[..., int], tmp_path: Path) -> None:
    folder = make_labels(tmp_path)
    port = serve(folder)
    with (folder / "labels.csv").open("a") as table:
        table.write("p9,rust,A,0.9,0.1,0.2,1,gradcam,x.png\n")
    for path, method, body in (("/state", "GET", None), ("/answers", "POST", {"id": "p0", "verdict": "accept"})):
        status, _, content = ask(port, path, method, body)
        assert status == 409
        assert "labels.csv was written anew" in json.loads(content)["error"]


@pytest.mark.parametrize(("kind", "harm"), [("picture", "0.png"), ("overlay", "labels/masks/p0.png")])
def test_a_picture_that_is_gone_or_broken_is_said(
    serve: Callable[..., int], tmp_path: Path, kind: str, harm: str
) -> None:
    port = serve(make_labels(tmp_path))
    (tmp_path / harm).write_bytes(b"no picture")
    status, _, content = ask(port, f"/{kind}/p0")
    assert status == 409
    assert "p" in json.loads(content)["error"]
    (tmp_path / harm).unlink()
    status, _, content = ask(port, f"/{kind}/p0")
    assert status == 409
    assert "cannot be read" in json.loads(content)["error"]
