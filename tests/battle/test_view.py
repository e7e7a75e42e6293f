"""The page of a battle: what it holds against the agent's own decisions, and how it is used in a browser."""

import json
import math
import time
from pathlib import Path

import lz4.frame
import pytest
import torch

from battle.agents import TurnwiseAgent
from battle.decision import describe_action
from battle.view import Names, main, view
from data.replay_file import parse_name, read_battle
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle
from tests.chromium import tab
from tests.packs import tiny_network
from trainer.export import export_model

READY = "document.body && document.body.dataset.ready !== undefined"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """A saved agent of the shipped vocabulary, its critics drawn, its win chance calibrated."""
    folder = tmp_path_factory.mktemp("agent") / "model"
    tokenizer = Tokenizer.load()
    network = tiny_network(vocab_size=len(tokenizer), vocabulary_hash=tokenizer.hash, max_turns=64)
    with torch.no_grad():
        for part in (network.critics, network.actor):
            for parameter in part.parameters():
                parameter.normal_(std=0.2)
    export_model(network, tokenizer, folder)
    fitted = {str(gamma): {"slope": 0.03, "intercept": n / 10} for n, gamma in enumerate(network.config.gammas)}
    (folder / "calibration.json").write_text(json.dumps({"gammas": fitted}))
    return folder


@pytest.fixture(scope="module")
def battle(tmp_path_factory):
    made = make_battle(5, "gen9ou", Style(noise=0.3, missing=0.1, max_turns=60))
    return write_battle(tmp_path_factory.mktemp("battles"), made)


def data_of(page):
    return json.loads(page.split('<script id="data" type="application/json">')[1].split("</script>")[0])


def test_every_turn_is_what_the_agent_decides_there(agent, battle):
    record = read_battle(battle)
    page = data_of(view(battle, str(agent)))
    acting = TurnwiseAgent.from_pretrained(agent)
    assert len(page["turns"]) == len(record.states)
    judged = []
    for t in range(0, len(record.states) - 1, 7):
        decision = acting.decide(record.states[: t + 1], record.actions[:t])
        turn = page["turns"][t]
        shown = {action["id"]: action for action in turn["actions"]}
        legal = [a for a, p in enumerate(decision.probabilities) if p > 0]
        assert set(legal) <= set(shown)
        for a in legal:
            assert shown[a]["p"] == pytest.approx(decision.probabilities[a], abs=1e-3)
            assert shown[a]["q"] == pytest.approx(decision.q_values[a], abs=0.02)
        if shown:
            assert turn["best"] == decision.action
        assert turn["curve"][2] == pytest.approx(decision.win_chance, abs=1e-3)
        assert turn["curve"][0] == pytest.approx(decision.values[0.9], abs=0.01)
        odds = 0.03 * decision.values[0.9999] + 0.3  # each discount's own fit
        assert turn["curve"][3] == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-3)
        assert turn["played"] == record.actions[t]
        judged.append(turn["agrees"])
    assert {gamma["gamma"]: gamma["calibrated"] for gamma in page["gammas"]} == {
        0.9: False, 0.99: False, 0.999: True, 0.9999: True,
    }  # fmt: skip
    same, every = page["about"]["agreed"]
    assert 0 < same < every < len(record.states)
    assert {True, False} <= set(judged)


def test_all_decisions_at_once_are_those_one_by_one_over_a_full_window(agent):
    acting = TurnwiseAgent.from_pretrained(agent)
    states = (make_battle(9, "gen2ou").states * 20)[:160]  # over a window of 64
    actions = [i % 4 for i in range(len(states))]
    together = acting.decide_all(states, actions)
    for t in (0, 5, 63, 64, 65, 96, 97, 130, 159):
        alone = acting.decide(states[: t + 1], actions[:t])
        assert together[t].probabilities == pytest.approx(alone.probabilities, abs=1e-4), t
        assert together[t].values == pytest.approx(alone.values, rel=1e-3, abs=1e-3), t
    with pytest.raises(ValueError, match="actions"):
        acting.decide_all(states, actions[:-5])


def test_players_names_are_there_only_when_asked_for(agent, battle):
    name = parse_name(battle)
    for asked in (False, True):
        page = view(battle, str(agent), names=asked)
        assert (name.player in page) is asked
        assert (name.opponent in page) is asked


def test_names_are_written_as_people_write_them():
    write = Names("gen9ou")
    found = [write(name) for name in ("ironvaliant", "bodyslam", "choiceband", "vesselofruin", "stealthrock", "noitem")]
    assert found == ["Iron Valiant", "Body Slam", "Choice Band", "Vessel of Ruin", "Stealth Rock", ""]
    assert write("heavydutyboots") == "Heavy-Duty Boots"


@pytest.mark.parametrize("played", [3, 8, 12])
def test_an_action_that_the_state_does_not_hold_is_named_by_its_id(agent, tmp_path, played):
    """The format allows both: an action without a slot, and a forced switch with nobody left."""
    made = make_battle(5, "gen9ou", Style(max_turns=60))
    for state in made.states[2:4]:
        state["player_active_pokemon"]["moves"] = state["player_active_pokemon"]["moves"][:1]
        state["available_switches"] = state["available_switches"][:1]
    made.states[3] |= {"forced_switch": True, "available_switches": []}
    made.states[2]["forced_switch"] = False
    made.actions[2:4] = [played, -1]
    path = tmp_path / "battle.json"
    path.write_text(json.dumps({"states": made.states, "actions": made.actions}))
    turn, empty = data_of(view(path, str(agent)))["turns"][2:4]
    shown = {action["id"]: action for action in turn["actions"]}
    assert (shown[played]["kind"], shown[played]["name"]) == ("other", f"action {played}")
    assert turn["agrees"] is False
    assert empty["actions"] == []
    decision = TurnwiseAgent.from_pretrained(agent).decide(made.states[:4])
    assert sum(decision.probabilities) == 0
    assert all(map(math.isfinite, decision.values.values()))
    assert decision.words == describe_action(made.states[3], decision.action)
    assert describe_action(made.states[2], played) == f"action {played}"


def test_the_command_says_what_is_wrong(agent, battle, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    assert main([str(battle), "--checkpoint", str(agent), "--out", str(out)]) == 0
    assert out.stat().st_size > 20_000
    broken = tmp_path / "broken.json"
    broken.write_text('{"states": [{}], "actions": []}')
    for arguments, word in (
        ([str(broken), "--checkpoint", str(agent)], "broken.json"),
        ([str(tmp_path / "none.json"), "--checkpoint", str(agent)], "none.json"),
        ([str(battle), "--checkpoint", str(tmp_path)], "config.json"),
        ([str(battle), "--checkpoint", str(agent), "--gamma", "0.5"], "0.5"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "x.html")]) == 1
        assert word in capsys.readouterr().err
    assert main([str(battle), "--checkpoint", str(agent), "--out", "/dev/full"]) == 1
    assert (
        "error: /dev/full: No space left on device: free some space or choose another file\n" in capsys.readouterr().err
    )
    for where in (tmp_path, battle / "x.html"):
        with pytest.raises(SystemExit):
            main([str(battle), "--checkpoint", str(agent), "--out", str(where)])
        assert f"argument --out: {str(where)!r}: cannot be written: give another file\n" in capsys.readouterr().err


@pytest.fixture(scope="module")
def window(agent, battle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "page.html"
    page.write_text(view(battle, str(agent)), encoding="utf-8")
    with tab(folder) as opened:
        yield opened, page


def place(window):
    return window.ask("document.getElementById('place').textContent")


def test_keys_step_through_the_battle(window):
    window, page = window
    window.shape(1200, 900)
    window.open(page, READY)
    turns = data_of(page.read_text())["turns"]
    count, misses = len(turns), [i for i, turn in enumerate(turns) if turn["agrees"] is False]
    assert place(window) == f"1 / {count}"
    for key, code, at in (
        ("ArrowRight", 39, 2), ("ArrowRight", 39, 3), ("ArrowLeft", 37, 2), ("End", 35, count),
        ("ArrowRight", 39, count), ("Home", 36, 1), ("ArrowLeft", 37, 1),
    ):  # fmt: skip
        window.key(key, code)
        assert place(window) == f"{at} / {count}", key
    window.key("End", 35)
    for miss in reversed(misses):
        window.key("p")
        assert place(window) == f"{miss + 1} / {count}"
        assert "disagrees" in window.ask("document.querySelector('.verdict').textContent")
    window.key("Home", 36)
    window.key("n")
    first = next(i for i in misses if i > 0)
    assert place(window) == f"{first + 1} / {count}"
    shown = window.ask("[...document.querySelectorAll('.action')].map((row) => Number(row.dataset.id))")
    assert sorted(shown) == sorted(action["id"] for action in turns[first]["actions"])
    assert window.ask("document.querySelector('.action.played').dataset.id") == str(turns[first]["played"])
    widths = window.ask("[...document.querySelectorAll('.action .bar')].map((bar) => parseFloat(bar.style.width))")
    best = sorted((100 * action["p"] for action in turns[first]["actions"]), reverse=True)
    assert widths == pytest.approx(best, abs=0.01)
    tags = window.ask("[...document.querySelectorAll('.action')].map((row) => row.querySelectorAll('.tag').length)")
    types = {action["id"]: action["types"] for action in turns[first]["actions"]}
    assert 2 in map(len, types.values())
    assert tags == [len(types[number]) for number in shown]
    assert window.ask("kindOf({ kind: 'move', power: 0, category: 'special' })") == "special"
    assert window.errors == []
    assert window.fetched == [page.as_uri()]


def test_a_move_without_a_power_of_its_own_is_of_its_category(agent, tmp_path):
    """Seismic Toss does damage: it was called a status move, as all without a number were."""
    made = make_battle(5, "gen1ou")
    first = min(made.states[0]["player_active_pokemon"]["moves"], key=lambda move: move["name"])
    first |= {"name": "acid", "base_power": 0, "category": "physical"}  # first by name as well
    (tmp_path / "toss.json").write_text(json.dumps({"states": made.states, "actions": made.actions}))
    page = data_of(view(tmp_path / "toss.json", str(agent)))
    (move,) = (action for action in page["turns"][0]["actions"] if action["id"] == 0)
    assert (move["power"], move["category"]) == (0, "physical")


def test_a_finger_steps_through_the_battle(window):
    window, page = window
    window.shape(390, 844, phone=True)
    window.open(page, READY)
    count = len(data_of(page.read_text())["turns"])
    window.swipe(300, 500, 80, 510)
    window.wait("document.body.dataset.now === '1'")
    window.swipe(80, 500, 300, 490)
    window.wait("document.body.dataset.now === '0'")
    window.swipe(200, 700, 210, 500)  # that scrolls the page
    window.wait("scrollY > 50")
    time.sleep(0.6)  # a tap on a page that still rolls only stops it
    assert place(window) == f"1 / {count}"
    for at in ("1", "2"):
        window.tap("#next")
        window.wait(f"document.body.dataset.now === '{at}'")
    window.ask("scrollTo(0, 0)")
    window.tap("#plot")
    window.wait(f"Math.abs(Number(document.body.dataset.now) - {count / 2}) <= 2")
    window.tap("#tabs button:first-child")
    window.wait("document.getElementById('curve-title').textContent.startsWith('Value over the battle')")
    assert window.ask("document.documentElement.scrollWidth") == 390  # nothing stands out to the side
    heights = window.ask("[...document.querySelectorAll('nav button')].map((b) => b.getBoundingClientRect().height)")
    assert min(heights) >= 44  # a fingertip
    assert window.errors == []


def test_a_battle_of_two_hundred_turns_is_there_in_under_a_second(agent, tmp_path):
    content = make_battle(3, "gen9ou", Style(noise=0.2, missing=0.0, max_turns=60))
    states = (content.states[:-1] * 8)[:199] + content.states[-1:]
    actions = [*(content.actions[:-1] * 8)[:199], -1]
    long = tmp_path / "long.json.lz4"
    long.write_bytes(lz4.frame.compress(json.dumps({"states": states, "actions": actions}).encode()))
    page = tmp_path / "long.html"
    page.write_text(view(long, str(agent)), encoding="utf-8")
    with tab(tmp_path) as window:
        window.shape(1200, 900)
        window.open(page, READY)
        assert place(window) == "1 / 200"
        # From navigation to the drawn page, the parsing of its data in it.
        took = window.ask("Number(document.body.dataset.ready)")
        assert 0 < took < 1000
        window.key("End", 35)
        assert place(window) == "200 / 200"
        assert window.errors == []


def test_text_of_a_battle_stays_text(agent, tmp_path):
    hostile = "</script><b id=hostile>x</b><!--"
    made = make_battle(4, "gen9ou")
    for state in made.states:
        state["opponent_active_pokemon"]["name"] = hostile
        state["weather"] = hostile
    file = tmp_path / "hostile.json"
    file.write_text(json.dumps({"states": made.states, "actions": made.actions}))
    page = tmp_path / "hostile.html"
    page.write_text(view(file, str(agent)), encoding="utf-8")
    with tab(tmp_path) as window:
        window.open(page, READY)
        assert window.ask("document.getElementById('hostile')") is None
        assert "hostile" in window.ask("document.getElementById('field').textContent").lower()
        assert window.errors == []
