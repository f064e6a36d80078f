"""HTTP as servers really speak it, from a server that sends given bytes."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest

from sage_trl.llm_client import transport as transport_module
from sage_trl.llm_client.client import ChatClient, Kind
from sage_trl.llm_client.transport import KeptAliveTransport

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
ZIPPED = b"Content-Encoding: gzip\r\nContent-Length: 22\r\n\r\n" + gzip.compress(b"ok", mtime=0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = b"x" * 1000


class Scripted:
    """Answers the requests of each connection with the next of the given byte strings; b"" hangs up."""

    def __init__(self, *answers: bytes, reads: bool = True, context: ssl.SSLContext | None = None) -> None:
        self.answers, self.reads, self.context = list(answers), reads, context
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.heads: list[bytes] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                length = re.search(rb"content-length: *(\d+)", self.heads[-1], re.IGNORECASE)
                if self.reads:
                    await reader.readexactly(int(length[1]) if length else 0)
                answer = self.answers.pop(0)
                for part in re.findall(rb".{1,7}", answer, re.DOTALL) if len(answer) < 200 else [answer]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not answer or b"onnection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def __aenter__(self) -> Scripted:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        scheme = "http" if self.context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1/chat"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


Ask = Callable[[], Awaitable[httpx2.Response]]


def talk(server: Scripted, story: Callable[[Ask], Awaitable[None]], context: ssl.SSLContext | None = None) -> None:
    async def told() -> None:
        async with server, httpx2.AsyncClient(transport=KeptAliveTransport(context)) as client:
            await asyncio.wait_for(story(lambda: client.post(server.url, content=BODY)), 10)

    asyncio.run(told())


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (OK, 200, "ok"),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED, 200, "abcde"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, "until the end"),
        (b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nold", 200, "old"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, "ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nlate", 503, "late"),
        (b"HTTP/1.1 200 OK\r\n" + ZIPPED, 200, "ok"),
    ],
)
def test_every_way_to_frame_a_body(answer: bytes, status: int, text: str) -> None:
    server = Scripted(answer, OK)

    async def story(ask: Ask) -> None:
        response = await ask()
        assert (response.status_code, response.text) == (status, text)
        assert response.headers.get("retry-after") == ("3" if status == 503 else None)
        assert (await ask()).text == "ok"

    talk(server, story)
    assert server.connections == (2 if b"onnection: close" in answer else 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 50\r\n\r\ntorn",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nConnection: close",
        b"no HTTP at all, Connection: close\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_whole_response(answer: bytes) -> None:
    async def story(ask: Ask) -> None:
        with pytest.raises(httpx2.RemoteProtocolError, match=None if answer else "^no response: the server closed"):
            await ask()
        assert (await ask()).text == "ok"

    server = Scripted(answer, OK)
    talk(server, story)
    assert server.connections == 2


def test_a_refusal_before_the_request_was_read() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig"

    async def story(ask: Ask) -> None:
        assert (await ask()).status_code == 413

    talk(Scripted(refusal, reads=False), story)


def test_what_comes_unasked_answers_nothing() -> None:
    server = Scripted(OK + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", OK)

    async def story(ask: Ask) -> None:
        assert (await ask()).status_code == 200
        await asyncio.sleep(0.05)
        assert (await ask()).status_code == 200

    talk(server, story)
    assert server.connections == 2


def test_a_server_of_another_kind_that_speaks_first() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ready\r\n")
        await asyncio.sleep(0.1)
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, httpx2.AsyncClient(transport=KeptAliveTransport(None)) as client, asyncio.timeout(10):
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.post(url, content=BODY)

    asyncio.run(story())


def test_a_connection_that_is_reset_says_so() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # Without lingering, a closed socket resets its connection.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def story() -> None:
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, httpx2.AsyncClient(transport=KeptAliveTransport(None)) as client, asyncio.timeout(10):
            with pytest.raises(httpx2.RemoteProtocolError, match=r"no response: .*reset by peer"):
                await client.post(url, content=BODY)

    asyncio.run(story())


def test_a_server_that_never_connects_was_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_SECONDS", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def story() -> None:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            client = ChatClient(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", 10.0)
            outcome = await client.send({"model": "m", "messages": []})
            await client.close()
        assert (outcome.kind, outcome.text) == (Kind.NOT_SENT, "ConnectTimeout: no connection within 0.1 s")

    asyncio.run(story())


def test_idle_connections_are_used_again_but_not_old_or_closed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(*[OK] * 6)

    async def story(ask: Ask) -> None:
        for _ in range(3):
            await ask()
        assert server.connections == 1
        with monkeypatch.context() as patch:
            patch.setattr(transport_module, "KEEP_ALIVE", 0.0)
            await ask()
        assert server.connections == 2
        await asyncio.gather(ask(), ask())
        assert server.connections == 3

    talk(server, story)


def test_a_call_that_is_given_up_takes_its_connection_along() -> None:
    server = Scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nslow", OK)

    async def story(ask: Ask) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask()
        assert (await ask()).text == "ok"

    talk(server, story)
    assert server.connections == 2


def test_nobody_listens() -> None:
    async def story() -> None:
        async with httpx2.AsyncClient(transport=KeptAliveTransport(None)) as client:
            for host in ("127.0.0.1:9", "no-such-host.invalid", f"{'a' * 64}.invalid"):
                with pytest.raises(httpx2.ConnectError):
                    await client.post(f"http://{host}/", content=BODY)

    asyncio.run(story())


def test_certificates(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)

    async def works(ask: Ask) -> None:
        assert [(await ask()).text for _ in range(2)] == ["ok", "ok"]

    async def fails(ask: Ask) -> None:
        with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
            await ask()

    server = Scripted(OK, OK, context=served)
    talk(server, works, ssl.create_default_context(cafile=certificate))
    assert server.connections == 1
    talk(Scripted(OK, context=served), fails, ssl.create_default_context())


@pytest.mark.parametrize(("variable", "begin"), [("http_proxy", "http://"), ("http_proxy", ""), ("all_proxy", "")])
def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, variable: str, begin: str) -> None:
    monkeypatch.delenv("http_proxy", raising=False)

    async def story() -> None:
        async with Scripted(OK) as proxy:
            monkeypatch.setenv(variable, begin + proxy.url.removesuffix("/v1/chat").removeprefix("http://"))
            monkeypatch.delenv("no_proxy", raising=False)
            client = ChatClient("http://models.invalid/v1", 5.0)
            outcome = await client.send({"model": "m", "messages": []})
            await client.close()
        assert (outcome.kind, outcome.text) == (Kind.ANSWERED, "ok")
        assert proxy.heads[0].startswith(b"POST http://models.invalid/v1/chat/completions ")

    asyncio.run(story())


def test_a_proxy_that_refuses_sends_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Scripted(b"HTTP/1.1 407 Log In\r\nContent-Length: 0\r\n\r\n") as proxy:
            monkeypatch.setenv("https_proxy", proxy.url.removesuffix("/v1/chat"))
            monkeypatch.delenv("no_proxy", raising=False)
            client = ChatClient("https://models.invalid/v1", 5.0)
            outcome = await client.send({"model": "m", "messages": []})
            await client.close()
        assert (outcome.kind, outcome.text) == (Kind.NOT_SENT, "ProxyError: 407 Log In")

    asyncio.run(story())


def test_a_request_tells_what_is_needed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    async def story() -> None:
        async with Scripted(OK) as server:
            client = ChatClient(server.url.removesuffix("/chat"), 5.0)
            await client.send({"model": "m", "messages": []})
            await client.close()
        first, *lines = server.heads[0].decode().strip().split("\r\n")
        told = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert first == "POST /v1/chat/completions HTTP/1.1"
        assert told.pop("user-agent").startswith("AsyncOpenAI/")
        assert told == {
            "host": server.url.split("/")[2],
            "authorization": "Bearer sk-test",
            "accept": "application/json",
            "content-type": "application/json",
            "content-length": "27",
        }

    asyncio.run(story())
