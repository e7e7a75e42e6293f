"""Pictures of README and docs/playing.md, anew after `make train` and `make view`: python -m tests.pictures [TURN]."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chromium import tab

ROOT = Path(__file__).parents[1]
RUNS, IMAGES = ROOT / "runs", ROOT / "docs" / "images"
DUEL_TURNS = 10  # with team preview


def main(turn: str = "12") -> None:
    """report.png of runs/quickstart; view.png and view_phone.png of runs/battle.html at one of its turns; of a duel."""
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
        duel(page, Path(folder) / "battles")


def duel(page, out: Path) -> None:
    """duel_lead.png and duel.png: a duel in which the person does what the agent advises, at team preview and later."""
    command = [sys.executable, "-m", "battle.duel", "--formats", "gen9ou", "--out", str(out), "--port", "0"]
    process = subprocess.Popen([*command, "--seed", "4"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        page.shape(1160, 820)
        page.open(
            process.stdout.readline().split("open ")[1].split()[0],
            "document.body && document.body.dataset.phase === 'idle'",
        )
        page.ask("document.getElementById('begin').click()")
        for turn in range(DUEL_TURNS):
            page.wait("document.body.dataset.phase === 'asked'")
            page.ask("document.getElementById('hint').click()")
            page.wait("document.querySelector('.action.best') !== null")
            if turn == 0:
                page.picture(IMAGES / "duel_lead.png")
            if turn < DUEL_TURNS - 1:
                version = page.ask("document.body.dataset.version")
                page.ask("document.querySelector('.action.best').click()")
                page.wait(f"document.body.dataset.version > {version}")
        page.picture(IMAGES / "duel.png")
    finally:
        process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
