"""One Node process of ours: how it is started, asked over its pipes, and ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec

from battle.errors import NoSimulator

log = logging.getLogger(__name__)

ROOM = Path(__file__).parent
BRIDGE = ROOM / "node" / "bridge.js"
OLDEST_NODE = 20
# A round of many battles is more than the usual 64 kB: a full pipe would stop the process halfway through.
PIPE_BYTES = 1 << 20
INSTALL = "run `make setup`, or `npm ci --omit=optional --ignore-scripts` in battle/"


def node_command() -> list[str]:
    """The Node program with its arguments; raises NoSimulator where Node or the package is missing."""
    node = os.environ.get("TURNWISE_NODE") or shutil.which("node")
    if not node:
        raise NoSimulator(f"no `node` on the path: install Node {OLDEST_NODE} or newer, then {INSTALL}")
    if not (ROOM / "node_modules" / "pokemon-showdown" / "package.json").is_file():
        raise NoSimulator(f"the npm package pokemon-showdown is not installed in {ROOM.name}/: {INSTALL}")
    return [node, "--max-old-space-size=2048", "--max-semi-space-size=64", str(BRIDGE)]


def refuse_old_node() -> None:
    """Raises NoSimulator where Node is older than the simulator's code, of which it says nothing but where it stumbled.
    Asked where that did not start: the answer takes Node some 40 ms."""
    node = node_command()[0]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
        if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE:
            raise NoSimulator(f"{node} is Node {version}, too old: install Node {OLDEST_NODE} or newer")


def _widen(pipe: int) -> None:
    """A pipe to PIPE_BYTES, if it may: all pipes of a user who is not root hold 64 MB together by Linux's default, and
    those of some thirty processes are that much. Any further one stays as it is, and is emptied in more goes."""
    with contextlib.suppress(PermissionError):
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Worker:
    """One Node process and the lanes that live in it."""

    def __init__(self, start_timeout: float = 60.0) -> None:
        self.lanes: set[str] = set()
        self.restarts = 0
        self.version = ""
        self._start(start_timeout)

    def _start(self, timeout: float) -> None:
        # In a session of its own, so that a Ctrl-C on the terminal stops us and not the battles that we finish first;
        # it ends by itself when its input closes.
        self.process = subprocess.Popen(
            node_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        for pipe in (self.process.stdin, self.process.stdout):
            _widen(pipe.fileno())
        os.set_blocking(self.process.stdout.fileno(), False)
        os.set_blocking(self.process.stdin.fileno(), False)
        os.set_blocking(self.process.stderr.fileno(), False)
        self.buffer = bytearray()
        hello = self.receive(timeout)
        if hello is None:
            said = self.complaint()
            self.kill()
            refuse_old_node()
            raise NoSimulator(f"the Node bridge did not start: {said or 'no word from it'}; {INSTALL}")
        self.version = json.loads(hello)["version"]

    def complaint(self) -> str:
        """The tail of what the process wrote to standard error."""
        data = self.process.stderr.read() or b""
        return data.decode("utf-8", "replace").strip()[-2000:]

    def send(self, commands: list[list[Any]], timeout: float) -> bool:
        """Writes one line of commands; False where the process takes no more or is gone."""
        deadline = time.monotonic() + timeout
        data = memoryview(msgspec.json.encode({"do": commands}) + b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdin, selectors.EVENT_WRITE)
            while data:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return False
                try:
                    data = data[os.write(self.process.stdin.fileno(), data) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True

    def receive(self, timeout: float) -> bytes | None:
        """The next line, or None where it does not come in time or the process is gone."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            start = 0
            while True:
                at = self.buffer.find(b"\n", start)
                if at >= 0:
                    line = bytes(self.buffer[:at])
                    del self.buffer[: at + 1]
                    return line
                start = len(self.buffer)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                chunk = os.read(self.process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return None
                self.buffer += chunk

    def drain_complaints(self) -> None:
        """Standard error is read so that its pipe never fills; it goes to the log."""
        said = self.complaint()
        if said:
            log.warning("node: %s", said)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def restart(self) -> None:
        self.kill()
        self.lanes.clear()
        self.restarts += 1
        self._start(60.0)
