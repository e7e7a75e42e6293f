"""A page as one text that needs nothing beside it: template, style, script and data of `battle/page/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent / "page"


def web_page(name: str, data: dict[str, Any]) -> str:
    """The page `name`: its template with the style and script that all pages share, then its own, and its data."""
    html, css, js = (
        "\n".join((PAGES / f"{part}.{kind}").read_text(encoding="utf-8") for part in parts)
        for kind, parts in (("html", [name]), ("css", ["field", name]), ("js", ["field", name]))
    )
    # Nothing in the data may end the script element that holds it.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    for mark, content in (("/*css*/", css), ("/*js*/", js), ("/*data*/", text)):
        html = html.replace(mark, content)
    return html
