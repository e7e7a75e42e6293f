"""A battle as a page: what happened turn by turn, drawn from the protocol's lines with nothing fetched.

The lines stand in the page as Showdown's own saved replays have them, so that with a connection Showdown's replay
script finds them and shows the animated battle above ours.
"""

from __future__ import annotations

from html import escape

from battle.story import Side, Story, Turn

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 46em; margin: 1.5em auto; padding: 0 1em; color: #222; }
section { border-top: 1px solid #ccc; padding: .3em 0 .6em; } h2 { font-size: 1em; margin: .3em 0; color: #555; }
ul { margin: .2em 0 .5em; padding-left: 1.2em; } .small { color: #666; list-style: none; }
.field { display: flex; gap: 2em; } .field div { flex: 1; }
.bar { display: block; background: #ddd; height: 7px; border-radius: 3px; }
.bar i { display: block; height: 7px; border-radius: 3px; background: #3a9d4a; }
.bar i.low { background: #d4a017; } .bar i.dying { background: #c0392b; }
"""


def _section(turn: Turn) -> str:
    happened = "".join(
        f"<li class='small'>{escape(t)}</li>" if small else f"<li>{escape(t)}</li>" for t, small in turn.said
    )
    field_row = "".join(map(_standing, turn.sides))
    return f"<section><h2>{escape(turn.heading)}</h2><ul>{happened}</ul><div class='field'>{field_row}</div></section>"


def _standing(side: Side) -> str:
    if not side.pokemon:
        return "<div></div>"
    colour = "dying" if side.percent < 20 else "low" if side.percent < 50 else "full"
    percent = f"{side.percent:.0f}%"
    return (
        f"<div>{escape(side.player)}: <b>{escape(side.pokemon)}</b> {percent} {escape(side.status)}"
        f"<span class='bar'><i class='{colour}' style='width:{percent}'></i></span></div>"
    )


def replay_page(title: str, lines: list[str]) -> str:
    """The page of a battle. lines: the room's protocol lines in order, as one player or a spectator saw them."""
    story = Story()
    for line in lines:
        story.tell(line)
    story.close("")
    # Nothing a player writes may end the script element, nor open a comment in it.
    log_text = "\n".join(lines).replace("</", "<\\/").replace("<!--", "<\\!--")
    one, two = (escape(side.player) for side in story.sides.values())
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{one} against {two}</h1>\n<p>{escape(title)}: <b id='result'>{escape(story.result)}</b></p>\n"
        "<div class='wrapper replay-wrapper'></div>\n"
        f"<main id='story'>{''.join(map(_section, story.turns))}</main>\n"
        f"<script type='text/plain' class='battle-log-data'>{log_text}</script>\n"
        "<script async src='https://play.pokemonshowdown.com/js/replay-embed.js'></script>\n</body></html>\n"
    )
