"""A measurement as a record, `launch/records/{name}.json`: name, command, commit, date, hardware, versions, results.

    python -m launch.record --name quickstart --command "make train" --results runs/quickstart/evaluation.json

For what a command has already written as JSON; benchmarks call `write_record` themselves.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from launch.machine import cpu_name
from trainer.scores import as_text
from trainer.versions import git_commit

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "launch" / "records"
# What stands before the last name of an absolute path, in JSON: at the start of a text, or of a word of a command.
FOLDERS = re.compile(r"""(?<=["\s='`(\[:])/(?:[^/\s"]+/)+(?=[^/\s"])""")


def hardware() -> str:
    """GPUs and processors of this machine, in words."""
    gpus = [f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"] if torch.cuda.is_available() else []
    return ", ".join([*gpus, f"{os.cpu_count()} × {cpu_name()}"])


def commit() -> str:
    """The commit measured, as `trainer.versions` tells it."""
    return git_commit(short=True) or "not a git checkout"


def as_recorded(content: Any) -> Any:
    """Content as a record holds it: absolute paths cut to their last name."""
    return json.loads(FOLDERS.sub("", json.dumps(content, ensure_ascii=False)))


def write_record(name: str, command: str, results: Any, versions: dict[str, str], folder: Path | None = None) -> Path:
    """Write a record (into `folder`, by default `launch/records`) and return its path; `versions` is joined by
    Python's own. Absolute paths are cut to their last name: a record tells nothing of where it was made."""
    record = {
        "name": name,
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version(), **versions},
        "results": results,
    }
    folder = folder or RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(as_recorded(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Turn a JSON file of results into a record."""
    parser = argparse.ArgumentParser(prog="python -m launch.record", description=main.__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--command", required=True, help="the command that measured it")
    parser.add_argument("--results", required=True, type=Path, help="JSON that it wrote")
    arguments = parser.parse_args(argv)
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    path = write_record(arguments.name, arguments.command, results, {"torch": version("torch")})
    if "policy" in results:
        about = f"`{arguments.command}`, {hardware()}"
        path.with_suffix(".md").write_text(f"# {arguments.name}\n\n{about}\n\n```\n{as_text(results)}\n```\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
