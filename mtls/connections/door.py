"""What happens in the event loop: accept, shake hands, read, hand over to a worker, write, close."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import socket
import ssl
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from wsgiref.types import WSGIApplication

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from mtls import deadline
from mtls.connections import wsgi
from mtls.connections.party_shares import Turns
from mtls.connections.responses import Response, check_version, response_of
from mtls.connections.tls_loop import Loop, report
from mtls.events import FEED, Feed
from mtls.liveness import BEAT_S, notice_death
from mtls.serve import ARRIVED, ERRORS, IDENTITY, MAX_BODY_BYTES, OUTCOME, Outcome, Problem, error_answer
from telemetry import bugs

_LINGER_S = 2.0  # after a refusal what the client still sends is thrown away for so long, lest it miss the answer
_FAREWELL_S = 3.0  # a stop lets running requests end for so long
_BREATH_S = 0.01  # between two looks at what only time can change
_TURN = 0.75  # who has waited for its turn for this part of its time is refused
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a client may take for the handshake, from its last answer to the end of the next request's header,
    and for sending a body or taking an answer; how many connections may be open; how many requests of one party may be
    with the workers, and within how many seconds a request is answered."""

    handshake_s: float
    idle_s: float
    transfer_s: float
    connections: int
    per_party: int
    answer_s: Callable[[], float] | None


class Door:
    """What happens in the event loop: accept, shake hands, read, hand over to a worker, write, close."""

    def __init__(
        self,
        app: WSGIApplication,
        listener: socket.socket,
        tls: ssl.SSLContext,
        workers: ThreadPoolExecutor,
        limits: Limits,
    ) -> None:
        host, port = listener.getsockname()[:2]
        self.limits = limits
        self.loop = Loop()
        self.http = web.Server(self._answer, loop=self.loop)
        self._stopping = asyncio.Event()
        self.thread = bugs.vital_thread(self._run, name=f"https-{port}", stopped=self._stopping.is_set)
        self._app = app
        self._error_answer = getattr(app, "extensions", {}).get(ERRORS, error_answer)
        self._listener = listener
        self._tls = tls
        self._workers = workers
        self.base = wsgi.base_environ(host, port)
        self._turns = Turns(limits.per_party)
        self._open: set[_Connection] = set()
        # Those whose client has the next move, the longest waiting first; the others' requests are with the workers.
        self._waiting: dict[_Connection, None] = {}
        self._running: set[asyncio.Future[wsgi.Answer]] = set()

    def stop(self) -> None:
        """From another thread: end the loop, and wait until it has ended."""
        with suppress(RuntimeError):  # the loop is closed: this is the second call
            self.loop.call_soon_threadsafe(self._stopping.set)
        self.thread.join(timeout=_FAREWELL_S + 5)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop.add_reader(self._listener, self._accept)
        await self._stopping.wait()
        self.loop.remove_reader(self._listener)
        self._listener.close()
        self.http.pre_shutdown()
        if self._running:
            await asyncio.wait(self._running, timeout=_FAREWELL_S)
        await self.http.shutdown(timeout=0.2)  # in which the last answers are written
        await self._close_all()

    async def _close_all(self) -> None:
        admissions = [connection.admission for connection in self._open if connection.admission]
        for connection in list(self._open):
            connection.drop()
        await asyncio.gather(*admissions, return_exceptions=True)
        await asyncio.sleep(0.01)  # asyncio closes the sockets in the loop's next turns

    def _accept(self) -> None:
        """A client is at the door. One a turn: a flood of connections must not keep the loop from everything else."""
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # others in this process or machine have the files
                self._make_room()
                self.loop.remove_reader(self._listener)
                self.loop.call_later(_BREATH_S, self._accept_again)
            return
        sock.setblocking(False)
        notice_death(sock)
        while len(self._open) >= self.limits.connections and self._make_room():
            pass
        connection = _Connection(self, sock)
        self._open.add(connection)
        self._wait(connection)
        connection.admission = self.loop.create_task(self._admit(connection, sock))

    def _accept_again(self) -> None:
        if not self._stopping.is_set():
            self.loop.add_reader(self._listener, self._accept)

    async def _admit(self, connection: _Connection, sock: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=self.limits.handshake_s,
                ssl_shutdown_timeout=_LINGER_S,
            )
        except OSError as error:  # TLS errors and timeouts are OSErrors too
            _log.info("handshake failed: %s", type(error).__name__)
            self.forget(connection)
        connection.admission = None

    def _wait(self, connection: _Connection) -> None:
        """From now on the client has the next move."""
        if connection in self._open:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    @contextmanager
    def _at_work(self, connection: _Connection) -> Iterator[None]:
        """Meanwhile the connection does not wait for its client, and is not closed to make room."""
        self._waiting.pop(connection, None)
        try:
            yield
        finally:
            self._wait(connection)

    def _make_room(self) -> bool:
        """Close the connection that has waited for its client longest. False if none waits."""
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        longest.drop()
        self.forget(longest)
        return True

    def forget(self, connection: _Connection) -> None:
        """The connection is closed, or as good as closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(_Connection, request.protocol)
        self._wait(connection)  # a request has begun: it is no longer among those idle longest
        arrived = time.monotonic()
        within_s = self._within_s(request)
        ends = None if within_s is None else arrived + within_s
        environ = connection.environ | {ARRIVED: arrived, wsgi.DEADLINE: ends}
        try:
            check_version(request)
            environ |= wsgi.request_environ(request, await self._body(request))
        except Problem as problem:
            return self.refusal(request, problem)
        with self._at_work(connection):
            try:
                turn_s = None if within_s is None else _TURN * within_s
                async with self._turns.of(environ.get(IDENTITY), within_s=turn_s):
                    status, headers, body = await self._work(environ)
            except Problem as problem:
                return self.refusal(request, problem)
            if FEED in environ:
                connection.feed = environ[FEED]
                return await self._stream(request, response_of(status, headers, b""), environ[FEED])
        response = response_of(status, headers, b"" if request.method == "HEAD" else body)
        response.outcome = environ.get(OUTCOME)
        if "Upgrade" in request.headers:  # answered as if it were not there; what follows may be no HTTP
            response.force_close()
        return response

    def refusal(self, request: web.BaseRequest, problem: Problem) -> web.Response:
        """The error body, after which the connection is closed."""
        answer = self._error_answer(request.path, problem)
        response = response_of(answer.status, list(answer.headers.items()), answer.get_data())
        response.force_close()
        return response

    def _within_s(self, request: web.BaseRequest) -> float | None:
        """Seconds in which that request is to be answered."""
        given = deadline.from_header(request.headers.get(deadline.HEADER))
        own = None if self.limits.answer_s is None else self.limits.answer_s()
        return own if given is None else given if own is None else min(given, own)

    async def _work(self, environ: dict[str, Any]) -> wsgi.Answer:
        """The application's answer, from a worker."""
        answer = self.loop.run_in_executor(self._workers, wsgi.call, self._app, environ)
        self._running.add(answer)
        try:
            return await answer
        finally:
            self._running.discard(answer)

    async def _stream(self, request: web.BaseRequest, head: web.Response, feed: Feed) -> web.StreamResponse:
        """Send what is published in `feed` until the client goes, does not keep up, or the server stops."""
        response = web.StreamResponse(status=head.status, reason=head.reason, headers=head.headers)
        response.force_close()
        news = asyncio.Event()
        feed.on_news(lambda: self._tell(news))
        try:
            await response.prepare(request)
            while not feed.closed and not self._stopping.is_set():
                try:
                    async with asyncio.timeout(BEAT_S):
                        await news.wait()
                except TimeoutError:
                    await self._in_time(response.write(b":\n\n"))
                    continue
                news.clear()
                data = feed.take()
                if data:
                    await self._in_time(response.write(data))
        except (OSError, TimeoutError):  # the client is gone, or takes nothing
            response.force_close()
        finally:
            feed.close()
        return response

    async def _in_time(self, writing: Awaitable[None]) -> None:
        async with asyncio.timeout(self.limits.transfer_s):
            await writing

    def tell(self, outcome: Outcome, *, taken: bool) -> None:
        """Tell the application whether the client has taken its answer."""
        if taken:
            outcome.taken()
        else:
            self.loop.run_in_executor(self._workers, outcome.lost)

    def _tell(self, news: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(news.set)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The whole body. Problem 408, 413 or 400 if it does not come in time, is too long or is no HTTP."""
        content = request.content
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise wsgi.too_long()
        if content.is_eof():  # it came together with the header, as most do
            return await content.read()
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self.limits.transfer_s):
                return await wsgi.read(request)
        except TimeoutError:
            seconds = self.limits.transfer_s
            raise Problem(408, f"the request was not complete after {seconds:g} s", timeout_s=seconds) from None
        except web.RequestPayloadError:
            raise Problem(400, "malformed body") from None


class _Connection(web.RequestHandler):
    """One client's connection: HTTP as aiohttp reads it, with our error bodies and our silence."""

    def __init__(self, door: Door, sock: socket.socket) -> None:
        super().__init__(
            door.http,
            loop=door.loop,
            keepalive_timeout=door.limits.idle_s,
            lingering_time=_LINGER_S,
            access_log=None,  # type: ignore[arg-type]  # means: none
            auto_decompress=False,
        )
        self.environ: dict[str, Any] = {}
        self.admission: asyncio.Task[None] | None = None
        self.feed: Feed | None = None  # what is being streamed
        self.client_is_done = False  # it has said that it sends no more
        self._door = door
        self._sock = sock
        self._wire: asyncio.Transport | None = None

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        if self._wire is not None and not self._wire.is_closing():
            self._wire.abort()
        else:  # in the middle of the first handshake or of the last: that fails, and asyncio cleans up
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. Whether it is still to get the answers to requests that have come whole."""
        self.client_is_done = True
        if self.feed is not None:
            return False
        request = self._current_request
        return bool(self._messages) or (request is not None and request.content.is_eof())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over: see who it is, once for all requests."""
        self._wire = cast(asyncio.Transport, transport)
        self.environ = wsgi.connection_environ(self._door.base, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Closed by either side."""
        super().connection_lost(exc)
        if self.feed is not None:
            self.feed.close()
        self._door.forget(self)

    def data_received(self, data: bytes) -> None:
        """Parse. aiohttp tells of nonsense inside a body only with the next request, which would never come."""
        super().data_received(data)
        request = self._current_request
        broken = self._messages and isinstance(getattr(self._messages[-1][0], "exc", None), HttpProcessingError)
        if broken and request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError())

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer, and wait until the client has taken all but what the buffers hold."""
        if self._is_last():
            resp.force_close()
        try:
            async with asyncio.timeout(self._door.limits.transfer_s):
                resp, lost = await super().finish_response(request, resp, start_time)
                lost = lost or self._wire is None or self._wire.is_closing()
                if self._is_last():  # perhaps only since the answer was begun
                    resp.force_close()
                    lost = lost or not await self._confirmed()
        except TimeoutError:
            self.drop()
            lost = True
        if isinstance(resp, Response) and resp.outcome is not None:
            self._door.tell(resp.outcome, taken=not lost)
        return resp, lost

    def _is_last(self) -> bool:
        return self.client_is_done and not self._messages

    async def _confirmed(self) -> bool:
        """Whether the kernel of a client that sends no more has taken what was written; it may be gone altogether."""
        while self._wire is not None and not self._wire.is_closing():
            if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return False
            unconfirmed = bytearray(4)
            fcntl.ioctl(self._sock, termios.TIOCOUTQ, unconfirmed)
            if not any(unconfirmed) and not self._wire.get_write_buffer_size():
                return True
            await asyncio.sleep(_BREATH_S)
        return False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """The error body for what the application never saw: requests that are no HTTP, and bugs in this module."""
        if isinstance(exc, LineTooLong):
            return self._door.refusal(request, Problem(431, "the request line or a header field is too long"))
        if status < 500:
            return self._door.refusal(request, Problem(status, "malformed HTTP request"))
        report("request failed", exc)
        return self._door.refusal(request, Problem(status, "internal error"))

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """The type and the place only, as anywhere."""
        report(str(args[0]), kw.get("exc_info"))
