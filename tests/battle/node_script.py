"""A script of our own in Node, beside the room's modules."""

import json
import subprocess
from typing import Any

from battle.node_process import ROOM, node_command


def run_script(script: str, content: Any = None) -> str:
    """What a script prints that finds `content` as JSON on its standard input; a script that fails fails the test."""
    done = subprocess.run(
        [node_command()[0], "-e", script], cwd=ROOM, input=json.dumps(content), capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
