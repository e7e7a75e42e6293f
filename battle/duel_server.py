"""The duel's page and its questions, served to browsers on this machine alone."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from battle.duel_battles import Duel
from battle.errors import BattleError
from battle.interface import RESIGN
from battle.person import NotAsked
from battle.web_page import web_page

HERE = {"127.0.0.1", "localhost"}


class PortTaken(BattleError):  # noqa: N818 (names the finding)
    """Something else listens there, or may not be listened on."""


class _Handler(BaseHTTPRequestHandler):
    """GET / (the page), /table?after=VERSION (waits for what is newer), /review/0 and /review/1 (pages).

    POST, JSON in and out: /battle {format}, /choose {version, action}, /give-up {version}, /thoughts {version}. What
    does not fit is status 409 with {"error": words}.
    """

    duel: Duel
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, method) -> None:
        # Another site's page may send us anything, under its own name or by a form; ours is same-origin and JSON.
        try:
            if urlsplit(f"//{self.headers['Host']}").hostname not in HERE:
                return self._send(403, {"error": "this page is served to this machine alone"})
            found = method(urlsplit(self.path))
        except NotAsked as error:
            return self._send(409, {"error": str(error)})
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            return self._send(400, {"error": f"not understood: {error!r}"})
        if found is None:
            return self._send(404, {"error": f"nothing at {self.path}"})
        return self._send(200, found)

    def _get(self, url) -> str | dict[str, Any] | None:
        if url.path == "/":
            return web_page("duel", self.duel.about())
        if url.path == "/table":
            (after,) = parse_qs(url.query).get("after", ["-1"])
            return self.duel.person.look(int(after)) | {"run": self.duel.recorder.run}
        if url.path in ("/review/0", "/review/1"):
            return self.duel.review(int(url.path[-1]))
        return None

    def _post(self, url) -> dict[str, Any] | None:
        if self.headers.get_content_type() != "application/json":
            raise ValueError("give JSON")
        asked = json.loads(self.rfile.read(max(0, int(self.headers["Content-Length"]))))
        person = self.duel.person
        if url.path == "/battle":
            if asked["format"] not in self.duel.args.formats:
                raise NotAsked(f"{asked['format']!r} is none of the formats given")
            person.ask_for(asked["format"])
        elif url.path == "/choose":
            person.answer(int(asked["version"]), int(asked["action"]))
        elif url.path == "/give-up":
            person.answer(int(asked["version"]), RESIGN)
        elif url.path == "/thoughts":
            return self.duel.thoughts(int(asked["version"]))
        else:
            return None
        return {}

    def _send(self, status: int, content: str | dict[str, Any]) -> None:
        page = isinstance(content, str)
        data = (content if page else json.dumps(content)).encode()
        # What was sent with a request that is refused stays unread: the connection ends with it.
        self.close_connection = self.close_connection or status != 200
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if page else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A page that was closed while it waited is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(duel: Duel, port: int) -> Iterator[str]:
    """Serves a duel on this machine, at `port` (0: any that is free); its address. Raises PortTaken."""
    handler = type("Handler", (_Handler,), {"duel": duel})
    try:
        server = _Server(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise PortTaken(f"port {port}: {error}: stop what listens there, or give another --port") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
