"""HTTP/1.1 on kept-alive connections to one server, for many requests at a time.

httpx's own transport looks through its pool for every request and hands it down through four layers, which with 64
requests in flight is more than half of a judgement's work. This one puts h11 straight onto asyncio's transports.
"""

from __future__ import annotations

import asyncio
import ssl
import time

import h11
import httpx2

CONNECT_SECONDS = 30.0  # the longest that a connection may take, encryption included
KEEP_ALIVE = 4.0  # seconds that a connection may be idle: servers close theirs after 5 or more
LONGEST_HEAD = 100 * 1024  # bytes of a response's headers


class KeptAliveTransport(httpx2.AsyncBaseTransport):
    """Sends each request on a connection that is idle, or on a new one. Once connected, time-outs are the caller's.

    Args:
        context: for certificates; not used with plain http.

    Raises:
        httpx2.ConnectError, httpx2.ConnectTimeout: from a request, if it was not sent for lack of a connection.
        httpx2.RemoteProtocolError: from a request, if the connection ended before the response did, or it was no HTTP.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._idle: list[tuple[float, _Connection]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        connection = self._take_idle() or await self._connect(request.url)
        try:
            response = await connection.exchange(request, content)
        except BaseException:
            connection.end()
            raise
        if connection.may_be_used_again():
            self._idle.append((time.monotonic(), connection))
        else:
            connection.end()
        return response

    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop()[1].end()
        await asyncio.sleep(0)  # the loop closes the sockets in its next round

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.lost and time.monotonic() - since < KEEP_ALIVE:
                return connection
            connection.end()
        return None

    async def _connect(self, url: httpx2.URL) -> _Connection:
        host, encrypted = url.raw_host.decode("ascii"), url.scheme == "https"
        try:
            async with asyncio.timeout(CONNECT_SECONDS) as limit:
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection,
                    host,
                    url.port or (443 if encrypted else 80),
                    ssl=self._context if encrypted else None,
                    happy_eyeballs_delay=0.25,
                )
        except (OSError, UnicodeError) as error:  # UnicodeError: a host that no name server can be asked for
            if limit.expired():
                raise httpx2.ConnectTimeout(f"no connection within {CONNECT_SECONDS:g} s") from None
            raise httpx2.ConnectError(str(error) or type(error).__name__) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and the exchange that it is in."""

    def __init__(self) -> None:
        self.lost = False  # of no more use
        self._in_exchange = False
        self._reason = "the server closed the connection"
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._in_exchange:  # "408 Request Timeout" and the like, which answers nothing that we will ask
            self.lost, self._reason = True, "the server spoke before it was asked"
            return
        self._http.receive_data(data)
        self._wake()

    def eof_received(self) -> None:
        self._lose()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._reason = str(error)
        self._lose()

    def _lose(self) -> None:
        self.lost = True
        self._http.receive_data(b"")  # h11's sign of the end
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def exchange(self, request: httpx2.Request, content: bytes) -> httpx2.Response:
        """Send a request and receive the whole response.

        Raises:
            httpx2.RemoteProtocolError: the connection ended before, or what came is no HTTP.
        """
        self._in_exchange = True
        try:
            self._send(request, content)
            return await self._receive()
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error
        except h11.RemoteProtocolError as error:
            raise httpx2.RemoteProtocolError(str(error)) from error
        finally:
            self._in_exchange = False

    def _send(self, request: httpx2.Request, content: bytes) -> None:
        assert self._transport is not None
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        events = (head, h11.Data(data=content), h11.EndOfMessage())
        # One write, and no wait until it is sent: a server may refuse, and hang up, before it has read all.
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))

    async def _receive(self) -> httpx2.Response:
        head: h11.Response | None = None
        parts: list[bytes] = []
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
        assert head is not None
        body = httpx2.ByteStream(b"".join(parts))
        return httpx2.Response(head.status_code, headers=head.headers.raw_items(), stream=body)

    async def _next_event(self) -> h11.Event:
        while True:
            if self.lost and self._http.their_state is h11.SEND_RESPONSE and not self._http.trailing_data[0]:
                raise httpx2.RemoteProtocolError(f"no response: {self._reason}")  # h11 would tell of its own states
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                assert isinstance(event, h11.Event)  # PAUSED comes only to those who asked for another protocol
                return event
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def may_be_used_again(self) -> bool:
        """Whether both sides are done and keep it; if so it is ready for the next exchange."""
        states = (self._http.our_state, self._http.their_state)
        if self.lost or states != (h11.DONE, h11.DONE) or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        return True

    def end(self) -> None:
        """Close it, whatever it is in."""
        if self._transport is not None:
            self._transport.abort()
