"""A battle as a page: what happened turn by turn, drawn from the protocol's lines with nothing fetched.

The lines stand in the page as Showdown's own saved replays have them, so that with a connection Showdown's replay
script finds them and shows the animated battle above ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 46em; margin: 1.5em auto; padding: 0 1em; color: #222; }
section { border-top: 1px solid #ccc; padding: .3em 0 .6em; } h2 { font-size: 1em; margin: .3em 0; color: #555; }
ul { margin: .2em 0 .5em; padding-left: 1.2em; } .small { color: #666; list-style: none; }
.field { display: flex; gap: 2em; } .field div { flex: 1; }
.bar { display: block; background: #ddd; height: 7px; border-radius: 3px; }
.bar i { display: block; height: 7px; border-radius: 3px; background: #3a9d4a; }
.bar i.low { background: #d4a017; } .bar i.dying { background: #c0392b; }
"""
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
_EFFECTS = {"-start": "begins", "-activate": "takes effect", "-singleturn": "takes effect", "-end": "ends"}
_CONDITIONS = {"-sidestart": "lies on", "-sideend": "is gone from"}


@dataclass
class _Side:
    player: str
    pokemon: str = ""
    percent: float = 0.0
    status: str = ""

    def shows(self, condition: str) -> None:
        """Takes in `241/353 par`, `72/100`, `24/48g` (of a bar of 48, and its colour) or `0 fnt`."""
        health, _, self.status = condition.partition(" ")
        now, _, full = health.rstrip("gy").partition("/")
        self.percent = 100 * float(now) / float(full) if full else 0.0

    def html(self) -> str:
        if not self.pokemon:
            return "<div></div>"
        colour = "dying" if self.percent < 20 else "low" if self.percent < 50 else "full"
        percent = f"{self.percent:.0f}%"
        return (
            f"<div>{escape(self.player)}: <b>{escape(self.pokemon)}</b> {percent} {escape(self.status)}"
            f"<span class='bar'><i class='{colour}' style='width:{percent}'></i></span></div>"
        )


def _plain(text: str) -> str:
    """`move: Stealth Rock` → `Stealth Rock`."""
    kind, colon, name = text.partition(": ")
    return name if colon and kind in ("move", "item", "ability") else text


@dataclass
class _Story:
    """The battle so far; a turn's section is closed with how both sides stand."""

    sides: dict[str, _Side] = field(default_factory=lambda: {"p1": _Side("Player 1"), "p2": _Side("Player 2")})
    heading: str = "Start"
    happened: list[str] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    result: str = "no result"

    def close(self, heading: str) -> None:
        if self.happened:
            field_row = "".join(side.html() for side in self.sides.values())
            self.sections.append(
                f"<section><h2>{escape(self.heading)}</h2><ul>{''.join(self.happened)}</ul>"
                f"<div class='field'>{field_row}</div></section>"
            )
        self.heading, self.happened = heading, []

    def say(self, text: str, small: bool = False) -> None:
        self.happened.append(f"<li class='small'>{escape(text)}</li>" if small else f"<li>{escape(text)}</li>")

    def who(self, ident: str) -> str:
        """`p1a: Starmie` → `Ann's Starmie`."""
        side = self.sides.get(ident[:2])
        return f"{side.player}'s {ident.partition(': ')[2]}" if side else ident

    def line(self, parts: list[str]) -> None:
        """One protocol line, split at its bars; those that only steer the client's animation are passed over."""
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
            self.say(f"{side.player} sends out {side.pokemon}.")
        elif kind == "move" and len(rest) > 1:
            self.say(f"{self.who(rest[0])} uses {rest[1]}.")
        elif kind == "faint":
            self.sides[rest[0][:2]].shows("0 fnt")
            self.say(f"{self.who(rest[0])} faints.")
        elif kind == "cant" and len(rest) > 1:
            self.say(f"{self.who(rest[0])} cannot move ({rest[1]}).")
        else:
            self.effect(kind, rest)

    def effect(self, kind: str, rest: list[str]) -> None:
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
            self.say(f"{self.who(rest[0])}: {rest[1]} {_BOOSTS[kind]} by {rest[2]}", small=True)
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


def replay_page(title: str, lines: list[str]) -> str:
    """The page of a battle. lines: the room's protocol lines in order, as one player or a spectator saw them."""
    story = _Story()
    for line in lines:
        parts = line.split("|")
        if len(parts) > 2 and parts[0] == "":
            story.line(parts)
    story.close("")
    # Nothing a player writes may end the script element, nor open a comment in it.
    log_text = "\n".join(lines).replace("</", "<\\/").replace("<!--", "<\\!--")
    one, two = (escape(side.player) for side in story.sides.values())
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{one} against {two}</h1>\n<p>{escape(title)}: <b id='result'>{escape(story.result)}</b></p>\n"
        "<div class='wrapper replay-wrapper'></div>\n"
        f"<main id='story'>{''.join(story.sections)}</main>\n"
        f"<script type='text/plain' class='battle-log-data'>{log_text}</script>\n"
        "<script async src='https://play.pokemonshowdown.com/js/replay-embed.js'></script>\n</body></html>\n"
    )
