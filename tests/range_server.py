"""A file server that knows byte ranges and how servers fail: `python range_server.py FOLDER` prints its port.

The first part of a path says how it behaves: `plain`; `flaky` (503 once for each range), `stall` (no answer once for
each range), `cut` (half of the body once for each range), `dead` (503 always), `hang` (never an answer), `norange` (the
whole file whatever is asked), `away` (a redirect to a local file), `private` (403 without the right query). Every
request is a line on stdout: path, range, bytes sent.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ONCE = {"flaky", "stall", "cut"}
STALL_S = 20.0
TOKEN = "sig=tellnobody"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.seen = folder, set[tuple[str, str, str]]()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        manner, _, name = url.path.strip("/").partition("/")
        wanted = self.headers.get("Range", "")
        key = (self.command, url.path, wanted)
        first = manner in ONCE and key not in self.server.seen
        self.server.seen.add(key)
        file = self.server.folder / name
        if manner == "hang" or (first and manner == "stall"):
            time.sleep(STALL_S)
            self.close_connection = True
        elif manner == "dead" or (first and manner == "flaky"):
            self._fail(503)
        elif manner == "private" and TOKEN not in url.query:
            self._fail(403)
        elif manner == "away":
            self._fail(302, Location=f"file://{file}")
        elif not file.is_file():
            self._fail(404)
        else:
            self._send(file.read_bytes(), "" if manner == "norange" else wanted, cut=first and manner == "cut")

    def _send(self, body: bytes, wanted: str, *, cut: bool) -> None:
        total = len(body)
        if wanted:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end) if end else total - 1, total - 1)
            if first >= total:
                return self._fail(416)
            body = body[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body[: len(body) // 2] if cut else body
        self.wfile.write(sent)
        self.close_connection = self.close_connection or cut
        self._log(206 if wanted else 200, len(sent))
        return None

    def _fail(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self._log(code, 0)

    def _log(self, code: int, sent: int) -> None:
        say(self.command, self.path, code, self.headers.get("Range", "-"), sent)

    def log_message(self, format: str, *args: object) -> None:
        return None


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> None:
    server = Server(Path(sys.argv[1]))
    say(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
