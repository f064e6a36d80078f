"""The server over real HTTP: who gets in, what is refused, and images by index only."""

from __future__ import annotations

import http.client
import json
import re
import socket
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.small_ad_pl import write_small_ad_pl
from tests.review.conftest import RunningReview, review


class Client:
    """A browser's headers, each of which a test may replace or leave out (None)."""

    def __init__(self, server: RunningReview) -> None:
        self.server = server
        host = f"127.0.0.1:{server.port}"
        self.headers: dict[str, str | None] = {"Host": host, "Cookie": f"sage_review_{server.port}={server.key}"}
        page = self.get("/")[2].decode()
        [token] = re.findall(r'name="review-token" content="([^"]+)"', page)
        self.headers |= {"Origin": f"http://{host}", "X-Review-Token": token, "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: bytes | None = None, **changes: str | None) -> tuple[int, Any, Any]:
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        given = {name: value for name, value in headers.items() if value is not None}
        connection.request(method, path, body, given)
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        connection.close()
        return answer

    def get(self, path: str, **changes: str | None) -> tuple[int, Any, Any]:
        return self.request("GET", path, **changes)

    def act(self, body: Any, **changes: str | None) -> tuple[int, Any, Any]:
        return self.request("POST", "/api/actions", json.dumps(body).encode(), **changes)


ACCEPT = {"group_id": "g0", "question_id": "q1", "revision": 0, "action": "accept", "action_id": "first-action"}


@pytest.fixture
def client(ad_pl, serve) -> Client:
    return Client(serve(ad_pl))


def test_the_printed_address_lets_in_and_nothing_else_does(client):
    status, headers, _ = client.get(f"/?key={client.server.key}", Cookie=None)
    assert status == 302 and headers["Location"] == "/"
    assert headers["Set-Cookie"].endswith("HttpOnly; Path=/; SameSite=Strict")
    for path in ("/", "/?key=wrong", "/api/overview", "/images/0/test", "/static/review.js"):
        assert client.get(path, Cookie=None)[0] == 403, path
    assert client.get("/api/overview", Cookie=f"sage_review_{client.server.port}=wrong")[0] == 403
    assert client.get("/static/review.js")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1:{port}.evil.example", ""])
def test_a_foreign_host_name_is_refused(client, host):
    host = host.format(port=client.server.port)
    assert client.get("/", Host=host)[0] == 400
    assert client.get(f"/?key={client.server.key}", Host=host, Cookie=None)[0] == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"X_Review_Token": None},
        {"X_Review_Token": "wrong"},
        {"X_Review_Token": "w\u00e4hr"},
        {"Cookie": None},
    ],
)
def test_an_action_from_elsewhere_is_refused(client, ad_pl, changes):
    assert client.act(ACCEPT, **changes)[0] == 403
    assert (ad_pl / "review.jsonl").read_bytes() == b""
    assert client.act(ACCEPT)[0] == 200


def test_bad_actions_are_refused_with_a_reason_and_the_server_goes_on(client, ad_pl):
    for body in (
        [],
        None,
        {},
        {**ACCEPT, "revision": "0"},
        {**ACCEPT, "group_id": "nobody"},
        {**ACCEPT, "action": "order", "order": [0]},
        {**ACCEPT, "action_id": "../../etc"},
        {**ACCEPT, "extra": 1},
    ):
        status, _, answer = client.act(body)
        assert status == 400 and json.loads(answer)["problem"], body
    assert client.request("POST", "/api/actions", b"{")[0] == 400
    assert client.act({**ACCEPT, "text": "x" * 70_000})[0] == 413
    assert client.act({**ACCEPT, "revision": 1})[0] == 409
    assert client.get("/api/questions/10")[0] == 404
    assert client.request("DELETE", "/api/actions")[0] == 405
    assert (ad_pl / "review.jsonl").read_bytes() == b""


def test_images_come_by_index_and_only_from_the_dataset(client, ad_pl, tmp_path):
    status, headers, content = client.get("/images/2/test")
    assert status == 200 and headers["Content-Type"] == "image/png"
    with Image.open(BytesIO(content)) as shown, Image.open(ad_pl / "images/1_test.png") as original:
        assert shown.tobytes() == original.convert("RGB").tobytes()
    assert client.get("/images/6/reference")[0] == 404  # g3 has none
    for path in ("/images/0/../../dataset.json", "/images/0/dataset.json", "/images/-1/test", "/images/99/test"):
        assert client.get(path)[0] == 404, path
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    (ad_pl / "images/0_test.png").unlink()
    (ad_pl / "images/0_test.png").symlink_to(outside)
    assert client.get("/images/0/test")[0] == 404
    (ad_pl / "images/2_test.png").write_bytes(b"no image")
    status, _, answer = client.get("/images/4/test")
    assert status == 500 and "2_test.png" in json.loads(answer)["problem"]


def test_a_browser_keeps_an_image_only_as_long_as_it_is_the_same(client, ad_pl, serve):
    _, headers, _ = client.get("/images/2/test")
    assert headers["Cache-Control"] == "private, no-cache"
    known = headers["ETag"]
    status, headers, content = client.get("/images/2/test", If_None_Match=known)
    assert (status, content, headers["ETag"], headers["Cache-Control"]) == (304, b"", known, "private, no-cache")
    assert client.get("/images/0/test", If_None_Match=known)[0] == 200  # as after another --split: another image
    Image.new("RGB", (16, 16), (1, 2, 3)).save(ad_pl / "images/1_test.png")
    status, headers, content = client.get("/images/2/test", If_None_Match=known)
    assert status == 200 and headers["ETag"] != known
    with Image.open(BytesIO(content)) as shown:
        assert shown.getpixel((0, 0)) == (1, 2, 3)


def test_nothing_is_loaded_from_elsewhere(client):
    policy = client.get("/")[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for path in ("/", "/static/review.js", "/static/review.css"):
        text = client.get(path)[2].decode()
        assert not re.search(r"https?:|//[a-z]+\.", text), path


def test_it_listens_on_this_machine_only(client):
    with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError):
        other.connect(("::1", client.server.port))
    table = Path("/proc/net/tcp")
    if not table.is_file():
        pytest.skip("no /proc/net/tcp, which lists what listens where")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{client.server.port:04X}")]
    assert listening == [f"0100007F:{client.server.port:04X}"]


def test_a_taken_port_and_a_second_review_are_refused(client, ad_pl, tmp_path):
    second = review("--dataset", ad_pl, "--port", 0)
    assert second.returncode == 6 and "another process" in second.stderr
    other = write_small_ad_pl(tmp_path / "other")
    taken = review("--dataset", other, "--port", client.server.port)
    assert taken.returncode == 2 and "--port" in taken.stderr and "Traceback" not in taken.stderr
