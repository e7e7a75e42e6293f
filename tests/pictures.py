"""The README's pictures, taken anew after `make train` and `make view`: python -m tests.pictures [TURN]."""

import sys
import tempfile
from pathlib import Path

from tests.chromium import tab

ROOT = Path(__file__).parents[1]
RUNS, IMAGES = ROOT / "runs", ROOT / "docs" / "images"


def main(turn: str = "12") -> None:
    """report.png of runs/quickstart; view.png and view_phone.png of runs/battle.html at one of its turns."""
    with tempfile.TemporaryDirectory() as folder, tab(Path(folder)) as page:
        battle = f"{(RUNS / 'battle.html').as_uri()}#{turn}"
        for name, address, width, height, phone in (
            ("report", RUNS / "quickstart" / "report.html", 1060, 1100, False),
            ("view", battle, 1160, 820, False),
            ("view_phone", battle, 390, 844, True),
        ):
            page.shape(width, height, phone=phone)
            page.open(address)
            page.picture(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
