"""A battle that an agent played on a server of ours, looked at in a browser that reaches nothing outside."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from battle import ladder
from battle.replay_page import replay_page
from tests.chromium import find_chromium


@pytest.fixture(scope="module")
def browser():
    return find_chromium()


def look(browser, folder, page, *wanted):
    """Runs the browser without a window on a page, every outside host unknown to it; returns its standard output."""
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]
    done = subprocess.run([*command, *wanted, page.as_uri()], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def page(browser, server, tmp_path_factory):
    """The replay page of a live battle; asks for the browser first, so that nothing is played where there is none."""
    pages = tmp_path_factory.mktemp("pages")

    def play(name, *more):
        base = ["--port", str(server.port), "--format", "gen9ou", "--name", name]
        return ladder.live(ladder.parser().parse_args([*base, *more]))

    waiting = threading.Thread(daemon=True, target=play, args=("Turnwise", "--replays", str(pages)))
    waiting.start()
    play("Rival", "--agent", "random", "--mode", "challenge", "--opponent", "Turnwise")
    waiting.join(60)
    (found,) = pages.glob("*.html")
    return found


@pytest.mark.timeout(180)
def test_the_replay_page_of_a_live_battle_shows_it_without_network(browser, page, tmp_path):
    lines = page.read_text(encoding="utf-8").split("class='battle-log-data'>")[1].split("</script>")[0].split("\n")
    turns = max(int(line[6:]) for line in lines if line.startswith("|turn|"))
    moves = sum(line.startswith("|move|") for line in lines)
    winner = next(line[5:] for line in lines if line.startswith("|win|"))
    drawn = look(browser, tmp_path, page, "--dump-dom")
    assert "<h1>" in drawn
    assert {"Turnwise", "Rival"} <= set(drawn.split("<h1>")[1].split("</h1>")[0].split())
    assert f">{winner} won</b>" in drawn
    assert f"<h2>Turn {turns}</h2>" in drawn
    assert drawn.split("</main>")[0].count(" uses ") == moves > turns // 2
    picture = Path(os.environ.get("TURNWISE_SCREENSHOT", tmp_path / "replay.png"))
    look(browser, tmp_path, page, f"--screenshot={picture}", "--window-size=900,1000")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000  # an empty page of this size is a few kB


def test_names_cannot_write_into_the_page(browser, tmp_path):
    hostile = "</script><b id=hostile>x</b><!--<script>"
    lines = [f"|player|p1|{hostile}|", f"|switch|p1a: {hostile}|Mew, L50|100/100", f"|faint|p1a: {hostile}", "|turn|1"]
    page = tmp_path / "page.html"
    page.write_text(replay_page(hostile, [*lines, f"|win|{hostile}"]), encoding="utf-8")
    drawn = look(browser, tmp_path, page, "--dump-dom")
    assert "<b id=" in drawn.replace('<b id="result">', "")  # inside the log, as text
    assert '<b id="hostile">' not in drawn
    assert drawn.count("<script") == 2 + hostile.count("<script") * len(lines)
    assert drawn.rstrip().endswith("</body></html>")
