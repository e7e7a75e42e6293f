"""What is known of one battle on a Showdown server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from battle.play import View


@dataclass
class Room:
    """One battle on the server: what came in since the last decision, and the view recorded so far.

    tag: its name there, which changes when a player hides it. name: its first one, without the password of a hidden
    battle, by which agent and files know it.
    fed: what the translator was told so far, lines and the request that followed from them. unseen: lines since the
    agent's last decision. met: the agent knows the room. retry: the server took the last choice back. blind: the
    default was played for want of a state, so the battle has no result of the agent's. winner: whom the server named,
    "" for a tie. rating: ours, as the ladder says. chair: the opponent's, p1 or p2. left: they are not there. timed: we
    asked for the server's timer.
    """

    tag: str
    name: str
    lane: str
    lines: list[str] = field(default_factory=list)
    request: str | None = None
    rqid: int = 0
    view: View = field(default_factory=View)
    fed: list[tuple[list[str], str | None]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    opponent: str = "opponent"
    rating: str = "Unrated"
    chair: str = ""
    left: bool = False
    timed: bool = False
    lead: int = 0
    joined: int = 0
    answered: tuple[int, str] = (-1, "")  # the last request answered (its number), and how
    repeated: tuple[int, str] = (-1, "")  # the same of before the connection broke: the answer may never have arrived
    refused: list[str] = field(default_factory=list)
    met: bool = False
    retry: bool = False
    blind: bool = False
    winner: str = ""
    over: bool = False

    @property
    def history(self) -> list[str]:
        """All lines of the battle that the translator was told."""
        return [line for lines, _ in self.fed for line in lines]

    @property
    def begun(self) -> str:
        """Ten hexadecimal digits, the same for both players, of the moment at which the battle began: where both are
        recorded, its views have one battle's name, and lie on one side of the split. Empty where it was not told."""
        told = next((line for line in self.history if line.startswith("|t:|")), "")
        return hashlib.sha256(f"{self.name} {told}".encode()).hexdigest()[:10] if told else ""
