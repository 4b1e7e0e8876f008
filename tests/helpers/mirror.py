"""A real HTTP server on loopback that misbehaves as told, and remembers what it was asked."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["_Handler"], None]


class Mirror:
    """``answers[path]``: what each request for it gets, one after the other; the last one stays.

    ``requests`` holds the (path, Range header) of every request, in order.
    """

    def __init__(self, url: str):
        self.url = url
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closed = threading.Event()
        self.lock = threading.Lock()

    def serves(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return self.url + path


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self):
        with self.mirror.lock:
            self.mirror.requests.append((self.path, self.headers["Range"]))
            answers = self.mirror.answers.get(self.path, [status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def log_message(self, *args):
        pass


@contextmanager
def mirror() -> Iterator[Mirror]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    here = Mirror(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"mirror": here})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield here
    finally:
        here.closed.set()  # lets stalled answers end
        server.shutdown()
        server.server_close()
        thread.join()


def content(
    data: bytes,
    *,
    ranges: bool = True,
    etag: str | None = None,
    stop_after: int | None = None,
    how: str = "close",
    delay: float = 0,
    length: bool = True,
) -> Answer:
    """``data``, or the range of it that is asked for.

    Args:
        ranges: whether ranges are honoured.
        etag: its ETag; a range that is asked for with another one gets everything.
        stop_after: bytes of ``data`` after which the answer ends, and ``how``: "close", "reset",
            or "stall".
        delay: seconds before the answer.
        length: whether the length is announced.
    """

    def answer(handler: _Handler) -> None:
        handler.mirror.closed.wait(delay)
        start = 0
        asked = handler.headers["Range"]
        if ranges and asked and handler.headers["If-Range"] in (None, etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                handler.send_response(416)
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        if etag:
            handler.send_header("ETag", etag)
        if length:
            handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        try:
            handler.wfile.write(data[start:stop_after])
        except ConnectionError:  # the client has heard enough
            return
        if stop_after is None:
            return
        if how == "stall":
            handler.mirror.closed.wait()
        elif how == "reset":
            handler.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()

    return answer


def status(code: int, **headers: str) -> Answer:
    """An answer without a file, such as 404, or 302 with ``Location``."""

    def answer(handler: _Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer
