"""Which battles of a command are done, so that it goes on where it was stopped: a line of JSON each, as they end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from battle.errors import BattleError
from battle.interface import Agent
from battle.recorder import run_id
from battle.schedule import seed_of

HASHED = ("teams", "models")  # told by their hashes alone


class OtherCommand(BattleError):  # noqa: N818
    """The journal is of a command with other settings, which the message names."""


class Journal:
    """A head line with the command's fingerprint, then a line for each battle; one that a kill cut short is passed
    over, and a first one too.

    Attributes:
        run: the command's id, part of its battles' names.
        notes: lines of earlier starts.

    Raises OtherCommand where another command began it, OSError.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any]):
        self.path = path
        self.notes: list[dict[str, Any]] = []
        self.run = run_id()
        if path.exists() and "\n" in path.read_text(encoding="utf-8"):
            self._read(fingerprint)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"run": self.run} | fingerprint) + "\n", encoding="utf-8")

    def _read(self, fingerprint: dict[str, Any]) -> None:
        head, *rest = self.path.read_text(encoding="utf-8").splitlines()
        found = json.loads(head)
        self.run = found.pop("run")
        # What an older journal does not say is taken for the same.
        different = [key for key in fingerprint if found.get(key, fingerprint[key]) != fingerprint[key]]
        if different:
            told = ", ".join(_told(key, found[key], fingerprint[key]) for key in different)
            raise OtherCommand(f"{self.path}: was begun with another {told}")
        for line in rest:
            try:
                note = json.loads(line)
            except ValueError:
                continue
            if isinstance(note, dict) and "battle" in note:
                self.notes.append(note)

    def note(self, file: TextIO, battle: int | str, **facts: Any) -> None:
        """Add a battle to `file`, the journal opened by `open_journal`."""
        file.write(json.dumps({"battle": battle, **facts}) + "\n")
        file.flush()


def fingerprint(settings: dict[str, Any], teams: object, agents: Sequence[Agent]) -> dict[str, Any]:
    """What a command's battles hang on: its settings, the very sets, and the models' weights; a folder of teams, or a
    model's, may have changed under its name."""
    return settings | {"teams": seed_of(teams), "models": seed_of(*map(_weights, agents))}


def _weights(agent: Agent) -> str:
    """A model's fingerprint, "" for a player without one."""
    network = getattr(agent, "network", None)
    if network is None:
        return ""
    digest = hashlib.sha256()
    for _, tensor in sorted(network.state_dict().items()):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _told(key: str, before: Any, now: Any) -> str:
    if key in HASHED:
        return key
    said = [" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in (before, now)]
    return f"{key} ({said[0]} → {said[1]})"
