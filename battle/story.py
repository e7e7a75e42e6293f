"""A battle in sentences, turn by turn, from the lines of Showdown's protocol."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

_STANDING = {"-damage", "-heal", "-sethp", "-status", "-curestatus"}
_SAID = {
    "-supereffective": "It is super effective.",
    "-resisted": "It is not very effective.",
    "-crit": "A critical hit.",
    "-miss": "It misses.",
    "-fail": "It fails.",
    "-immune": "It has no effect.",
}
_BOOSTS = {"-boost": "rises", "-unboost": "falls"}
_STATS = {
    "atk": "Attack", "def": "Defense", "spa": "Special Attack", "spd": "Special Defense", "spe": "Speed",
}  # fmt: skip
_EFFECTS = {"-start": "begins", "-activate": "takes effect", "-singleturn": "takes effect", "-end": "ends"}
_CONDITIONS = {"-sidestart": "lies on", "-sideend": "is gone from"}


@dataclass
class Side:
    """One player, who of theirs is on the field, and who has fallen."""

    player: str
    pokemon: str = ""
    percent: float = 0.0
    status: str = ""
    fallen: set[str] = field(default_factory=set)

    def shows(self, condition: str) -> None:
        """Takes in `241/353 par`, `72/100`, `24/48g` (of a bar of 48, and its colour) or `0 fnt`."""
        health, _, self.status = condition.partition(" ")
        now, _, full = health.rstrip("gy").partition("/")
        self.percent = 100 * float(now) / float(full) if full else 0.0


def _plain(text: str) -> str:
    """`move: Stealth Rock` → `Stealth Rock`."""
    kind, colon, name = text.partition(": ")
    return name if colon and kind in ("move", "item", "ability") else text


class Said(NamedTuple):
    """A sentence; small: a detail of the one before."""

    text: str
    small: bool


class Turn(NamedTuple):
    """A turn that is over. sides: how player 1 and player 2 stand after it."""

    heading: str
    said: list[Said]
    sides: list[Side]


@dataclass
class Story:
    """A battle so far. turns: those that are over; heading, happened: of the one under way."""

    sides: dict[str, Side] = field(default_factory=lambda: {"p1": Side("Player 1"), "p2": Side("Player 2")})
    heading: str = "Start"
    happened: list[Said] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    result: str = "no result"

    def close(self, heading: str) -> None:
        """A turn is over: what happened in it and how both sides stand are kept under its heading."""
        if self.happened:
            self.turns.append(Turn(self.heading, self.happened, [replace(side) for side in self.sides.values()]))
        self.heading, self.happened = heading, []

    def say(self, text: str, small: bool = False) -> None:
        self.happened.append(Said(text, small))

    def who(self, ident: str) -> str:
        """`p1a: Starmie` → `Ann's Starmie`."""
        side = self.sides.get(ident[:2])
        return f"{side.player}'s {ident.partition(': ')[2]}" if side else ident

    def tell(self, line: str) -> None:
        """One protocol line; those that only steer the client's animation are passed over."""
        parts = line.split("|")
        if parts[0] == "" and (len(parts) > 2 or parts[1:] == ["tie"]):
            self._line(parts)

    def _line(self, parts: list[str]) -> None:
        kind, rest = parts[1], parts[2:]
        if kind == "turn":
            self.close(f"Turn {rest[0]}")
        elif kind == "player" and len(rest) > 1 and rest[1] and rest[0] in self.sides:
            self.sides[rest[0]].player = rest[1]
        elif kind in ("win", "tie"):
            self.result = f"{rest[0]} won" if kind == "win" else "a tie"
            self.say(self.result)
        elif kind in ("switch", "drag") and len(rest) > 2:
            side = self.sides[rest[0][:2]]
            side.pokemon = rest[1].partition(",")[0]
            side.shows(rest[2])
            side.fallen.discard(side.pokemon)
            self.say(f"{side.player} sends out {side.pokemon}.")
        elif kind in ("replace", "detailschange") and len(rest) > 1:  # an illusion ends; Mega Evolution and its like
            side = self.sides[rest[0][:2]]
            side.pokemon = rest[1].partition(",")[0]
            self.say(f"{self.who(rest[0])} {'shows itself' if kind == 'replace' else f'is {side.pokemon} now'}.")
        elif kind == "move" and len(rest) > 1:
            self.say(f"{self.who(rest[0])} uses {rest[1]}.")
        elif kind == "faint":
            side = self.sides[rest[0][:2]]
            side.shows("0 fnt")
            side.fallen.add(side.pokemon)
            self.say(f"{self.who(rest[0])} faints.")
        elif kind == "cant" and len(rest) > 1:
            self.say(f"{self.who(rest[0])} cannot move ({rest[1]}).")
        else:
            self._effect(kind, rest)

    def _effect(self, kind: str, rest: list[str]) -> None:
        """A minor line: what a move or the field did. One that is silent tells of health and status alone."""
        if "[silent]" in rest and kind not in _STANDING:
            return
        if rest[0][:3] in ("p1:", "p2:") and kind in ("-heal", "-curestatus"):
            self.say(f"{self.who(rest[0])} is healed", small=True)  # on the bench: no `a`, its place on the field
        elif kind in ("-damage", "-heal", "-sethp") and len(rest) > 1:
            side = self.sides[rest[0][:2]]
            side.shows(rest[1])
            source = next((f" ({_plain(text[7:])})" for text in rest[2:] if text.startswith("[from] ")), "")
            self.say(f"{self.who(rest[0])} is at {side.percent:.0f}%{source}", small=True)
        elif kind in _SAID:
            self.say(_SAID[kind], small=True)
        elif kind in ("-status", "-curestatus") and len(rest) > 1:
            self.sides[rest[0][:2]].status = rest[1] if kind == "-status" else ""
            self.say(f"{self.who(rest[0])}: {rest[1]}{'' if kind == '-status' else ' is cured'}", small=True)
        elif kind in _BOOSTS and len(rest) > 2:
            self.say(f"{self.who(rest[0])}: {_STATS.get(rest[1], rest[1])} {_BOOSTS[kind]} by {rest[2]}", small=True)
        elif kind in _EFFECTS and len(rest) > 1:
            self.say(f"{self.who(rest[0])}: {_plain(rest[1])} {_EFFECTS[kind]}", small=True)
        elif kind in _CONDITIONS and len(rest) > 1:
            player = self.sides[rest[0][:2]].player
            self.say(f"{_plain(rest[1])} {_CONDITIONS[kind]} {player}'s side", small=True)
        elif kind in ("-weather", "-fieldstart", "-fieldend"):
            word = "ends" if kind == "-fieldend" else "is on" if rest[0] != "none" else ""
            self.say(f"{_plain(rest[0])} {word}" if word else "The weather is clear.", small=True)
        elif kind == "-terastallize" and len(rest) > 1:
            self.say(f"{self.who(rest[0])} terastallizes to {rest[1]}.")
