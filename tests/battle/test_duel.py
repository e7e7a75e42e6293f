"""A duel over its own page: whole battles, what is recorded of them, what is refused, and clicks in a browser."""

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from battle.duel import main, parser
from battle.duel_battles import Duel
from battle.duel_server import serving
from data.replay_file import parse_name, read_battle, read_json_bytes
from tests.chromium import tab
from trainer.world import free_port

pytestmark = pytest.mark.usefixtures("lent")

ROOT = Path(__file__).parents[2]
STARTER = str(ROOT / "battle" / "starter")


class Page:
    """What the page's script does, without a browser."""

    def __init__(self, address):
        self.address = address

    def post(self, path, kind="application/json", host=None, **content):
        headers = {"Content-Type": kind} | ({"Host": host} if host else {})
        asked = urllib.request.Request(self.address + path, json.dumps(content).encode(), headers)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path):
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return answer.read().decode()

    def look(self, after=-1):
        return json.loads(self.get(f"/table?after={after}"))

    def next(self, after):
        """The next table at which the person is asked, or the battle is over."""
        table = self.look(after)
        while table["phase"] == "busy":
            table = self.look(table["version"])
        return table


@pytest.fixture
def table(simulator, tmp_path):
    """A duel of two battles against the bundled agent, and its page."""
    options = ["--agent", STARTER, "--formats", "gen1ou", "gen9ou", "--out", str(tmp_path), "--seed", "3"]
    args = parser().parse_args(options)
    duel = Duel(args, simulator)
    battles = threading.Thread(target=lambda: [duel.battle(n, duel.person.wish()) for n in range(2)], daemon=True)
    battles.start()
    with serving(duel, 0) as address:
        yield duel, Page(address)
    battles.join(10)


@pytest.mark.timeout(180)
def test_a_battle_is_recorded_as_it_was_played_and_another_is_given_up(table, tmp_path):
    duel, page = table
    assert page.post("/battle", format="gen2ou")[0] == 409
    assert page.post("/battle", format="gen9ou") == (200, {})
    shown, chosen, thoughts, rng = page.next(0), [], {}, np.random.default_rng(2)
    assert {(action["kind"], len(action["moves"])) for action in shown["turn"]["actions"]} == {("lead", 4)}
    team = [action["name"] for action in shown["turn"]["actions"]]
    assert len(team) == 6
    status, leads = page.post("/thoughts", version=shown["version"])
    assert (status, set(leads["actions"])) == (200, set("012345"))
    assert leads["best"] == duel.agent.choose_lead(duel.person.previews(shown["version"]))
    assert leads["actions"][str(leads["best"])] == max(leads["actions"].values())
    assert page.post("/choose", version=shown["version"], action=6)[0] == 409
    assert page.post("/choose", version=shown["version"], action=3)[0] == 200
    foes, shown = {foe["name"] for foe in shown["turn"]["preview"]}, page.next(shown["version"])
    assert shown["turn"]["me"]["name"] == team[3]
    assert shown["turn"]["foe"]["name"] in foes
    while shown["phase"] == "asked":
        legal = [action["id"] for action in shown["turn"]["actions"]]
        if len(chosen) in (0, 5):
            status, thoughts[len(chosen)] = page.post("/thoughts", version=shown["version"])
            assert status == 200
            assert set(thoughts[len(chosen)]["actions"]) <= {str(action) for action in legal}
        chosen.append(int(rng.choice(legal)))
        assert page.post("/choose", version=shown["version"], action=chosen[-1])[0] == 200
        shown = page.next(shown["version"])
    assert shown["phase"] == "idle"
    mine, its = (read_battle(path) for path in duel.files)
    assert mine.actions == [*chosen, -1]
    assert mine.states[-1].battle_won == its.states[-1].battle_lost == (shown["result"] == "won")
    assert [parse_name(path).player for path in duel.files] == ["Player", "starter"]
    assert json.loads(read_json_bytes(duel.files[0]))["meta"]["lead"] == {"rule": "chosen", "place": 3}
    assert shown["turn"]["me"]["hp"] == round(mine.states[-1].player_active_pokemon.hp_pct, 4)
    winner = "Player" if shown["result"] == "won" else "starter"
    assert shown["story"][-1]["said"][-1] == [f"{winner} won", False]
    assert sum(shown["tally"]) == 1
    fallen = [pokemon for pokemon in shown["turn"]["foes"] if pokemon["hp"] == 0]
    standing = shown["turn"]["foe"]["hp"] > 0
    assert len(fallen) + (not standing) == 6 - mine.states[-1].opponents_remaining
    for at, thought in thoughts.items():
        decision = duel.agent.decide(mine.states[: at + 1], mine.actions[:at])
        assert thought["best"] == decision.action
        assert thought["chance"] == pytest.approx(decision.win_chance, abs=1e-5)
        for action, share in thought["actions"].items():
            assert share == pytest.approx(decision.probabilities[int(action)], abs=1e-3)
    for side, name in enumerate(("Player", "starter")):
        assert f'"players":["{name}"' in page.get(f"/review/{side}")

    assert page.post("/battle", format="gen1ou") == (200, {})
    shown = page.next(shown["version"])
    for _ in range(2):
        action = shown["turn"]["actions"][0]["id"]
        assert page.post("/choose", version=shown["version"], action=action)[0] == 200
        shown = page.next(shown["version"])
    assert page.post("/give-up", version=shown["version"])[0] == 200
    shown = page.next(shown["version"])
    assert shown["result"] == "lost"
    assert shown["tally"][1] >= 1
    assert read_battle(duel.files[0]).actions[2:] == [-1, -1]
    kept = duel.files[0].rename(tmp_path / "moved")
    with pytest.raises(urllib.error.HTTPError, match="409"):
        page.get("/review/0")
    kept.rename(duel.files[0])
    assert len(list(tmp_path.glob("gen*/*.json.lz4"))) == 4
    assert not duel.agent._lanes  # it forgot both


@pytest.mark.timeout(60)
def test_what_does_not_fit_is_refused_in_words(table):
    duel, page = table
    assert page.post("/choose", version=0, action=0) == (409, {"error": "the battle has gone on: look again"})
    assert page.post("/thoughts", version=0)[0] == 409
    status, said = page.post("/battle", host="evil.example", format="gen1ou")
    assert (status, said) == (403, {"error": "this page is served to this machine alone"})
    assert page.post("/battle", kind="text/plain", format="gen1ou")[0] == 400  # what another site's form could send
    for version in ("x", float("inf")):
        assert page.post("/choose", version=version)[0] == 400
    assert page.post("/battle", host="[", format="gen1ou")[0] == 400
    assert page.post("/nowhere")[0] == 404
    assert duel.person.look()["phase"] == "idle"
    for battle_format in ("gen1ou", "gen9ou"):  # lets the fixture's battles end, one of them at team preview
        assert page.post("/battle", format=battle_format)[0] == 200
        shown = page.next(duel.person.look()["version"])
        assert page.post("/battle", format="gen1ou")[0] == 409
        assert page.post("/give-up", version=shown["version"])[0] == 200
        shown = page.next(shown["version"])
        assert (shown["phase"], shown["result"], shown["review"]) == ("idle", "lost", battle_format == "gen1ou")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "random"], "--name random: the agent is called so, too"),
        (["--name", 240 * "a"], "give one of at most 18 characters"),
        (["--team", "own.gen1ou_team"], "it is of one format: give that as --formats"),
        (["--formats", "gen1ou", "--team", "own.gen1ou_team"], "own.gen1ou_team"),
        (["--formats", "gen99ou"], "format 'gen99ou'"),
        (["--port", "99999"], "port 99999"),
        (["--out", __file__], "test_duel.py: File exists: free some space or choose another --out"),
    ],
)
def test_what_cannot_begin_says_why(options, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--agent", "random", "--out", str(tmp_path), *options]) == 1
    assert said in capsys.readouterr().err


def test_by_a_short_discount_a_lead_is_named_and_no_chance():
    coach = SimpleNamespace(gamma=0.9, win_chance=lambda value, gamma: 0.5)
    said = Duel._of_leads(SimpleNamespace(coach=coach), [1.0, 3.0, 2.0])
    assert said == {"best": 1, "chance": None, "actions": {}}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_model_of_a_short_discount_names_a_lead_and_no_chances_of_nought(tmp_path):
    command = [
        sys.executable, "-m", "battle.duel", "--agent", "battle/starter:gamma=0.9", "--formats", "gen9ou",
        "--out", str(tmp_path), "--port", str(free_port()),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with tab(tmp_path / "browser") as browser:
            address = process.stdout.readline().split("open ")[1].split()[0]
            browser.open(address, "document.body && document.body.dataset.phase === 'idle'")
            browser.ask("document.getElementById('begin').click()")
            browser.wait("document.body.dataset.phase === 'asked'")
            browser.ask("document.getElementById('hint').click()")
            browser.wait("document.querySelectorAll('.action.best').length === 1")
            said = browser.ask("document.getElementById('choices').textContent")
            assert not browser.errors
    finally:
        process.kill()
    assert "in your place." in said
    assert "0%" not in said


@pytest.mark.timeout(120)
def test_a_person_plays_by_clicks_with_a_team_of_ones_own_and_the_command_ends_with_ctrl_c(tmp_path):
    team = ROOT / "battle" / "teams" / "gen9ou" / "training"
    command = [
        sys.executable, "-m", "battle.duel", "--agent", "type_switch", "--formats", "gen9ou", "--out", str(tmp_path),
        "--port", str(free_port()), "--team", str(sorted(team.glob("*.gen9ou_team"))[0]), "--name", "Ann",
        "--seed", "3",  # the first three of its turns leave all choices
    ]  # fmt: skip
    start = lambda *more: subprocess.Popen(  # noqa: E731
        [*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process = start()
    try:
        with tab(tmp_path / "browser") as browser:
            address = process.stdout.readline().split("open ")[1].split()[0]
            browser.open(address, "document.body && document.body.dataset.phase === 'idle'")
            browser.ask("document.getElementById('begin').click()")
            for turn in range(5):
                browser.wait("document.body.dataset.phase === 'asked'")
                version = browser.ask("document.body.dataset.version")
                if turn == 0:
                    assert browser.ask("document.querySelector('#choices h2').textContent") == "Who leads?"
                    assert browser.ask("document.querySelectorAll('#field .mon .name').length") == 6
                if turn == 3:  # no longer at team preview, so a move can terastallize
                    shown = browser.ask("document.querySelector('button.action[data-id=\"10\"] kbd').textContent")
                    move = browser.ask(
                        "[...document.querySelectorAll('button.action')].findIndex(b => b.dataset.id === '1')"
                    )
                    assert shown == f"⇧{move + 1}"
                    key = f"{{code: 'Digit{move + 1}', key: '\"', shiftKey: true}}"
                    browser.ask(f"document.dispatchEvent(new KeyboardEvent('keydown', {key}))")
                elif turn == 1:
                    browser.key("1")
                elif turn == 4:  # the button of before had the focus
                    assert browser.ask("document.activeElement === document.querySelector('button.action')")
                    browser.key(" ", 32)
                else:
                    browser.ask(
                        "{ const it = document.querySelector('button.action'); it.focus(); it.click(); it.click(); }"
                    )
                browser.wait(f"document.body.dataset.version > {version}")
            browser.wait("document.body.dataset.phase === 'asked'")
            assert browser.ask("document.getElementById('note').textContent") == ""  # a double click is one
            assert browser.ask("document.getElementById('hint')") is None  # a baseline has no thoughts to tell
            assert "Ann's" in browser.ask("document.getElementById('story').textContent")
            browser.ask("window.confirm = () => true; document.getElementById('leave').click()")
            browser.wait("document.body.dataset.phase === 'idle'")
            assert browser.ask("document.getElementById('result').textContent") == "lost"
            assert browser.ask("document.querySelectorAll('.reviews a').length") == 0
            assert not browser.errors
            assert all(url.startswith((address, "data:")) for url in browser.fetched)
            process.send_signal(signal.SIGINT)
            said, complaints = process.communicate(timeout=20)
            assert process.returncode == 0, complaints
            assert "won 0, lost 1, tied 0" in said
            browser.wait("document.getElementById('note').textContent.startsWith('The command has ended')")
            process = start("--name", "Ben")
            process.stdout.readline()  # the page that stayed open is the new command's now
            browser.wait("document.getElementById('players')?.textContent === 'Ben against typeswitch'")
            browser.wait("document.body.dataset.phase === 'idle' && !document.getElementById('note').textContent")
    finally:
        process.kill()
    files = list(tmp_path.glob("gen9ou/*"))
    assert {parse_name(path).player for path in files} == {"Ann", "typeswitch"}
    (mine,) = (read_battle(path) for path in files if parse_name(path).player == "Ann")
    assert mine.actions[2] == 10  # by Shift and the move's number
