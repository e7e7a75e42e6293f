"""The trained agent at the table: one encoder, cached lanes equal to a full forward, windows slid as training cuts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from battle.agents import TurnwiseAgent, main
from battle.baselines import RandomAgent
from battle.decision import describe_action
from battle.interface import Observation
from battle.play import Match, play
from battle.recorder import Recorder
from battle.saved_agent import model_folder
from battle.teams import load_teams
from data.encode import Encoder
from data.observation import SPACES
from data.replay_file import read_battle
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from tests.battle_files import Style, make_battle
from trainer.export import export_model

STARTER = Path(__file__).parents[2] / "battle" / "starter"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


def network_for(tokenizer, **changes):
    config = TurnwiseConfig(
        **{**preset("tiny"), "max_turns": 8, "layout": SPACES["default"].layout, "vocab_size": len(tokenizer)},
        vocabulary_hash=tokenizer.hash,
        **changes,
    )
    torch.manual_seed(1)
    network = TurnwiseForOfflineRL(config)
    torch.nn.init.normal_(network.critics.weight, std=0.3)
    return network


@pytest.fixture(scope="module")
def agent(tokenizer):
    return TurnwiseAgent(network_for(tokenizer), tokenizer)


def seen(lane, state, first, legal=None, retry=False, seed=0):
    """What play hands to an agent for one lane."""
    legal = np.ones(13, dtype=bool) if legal is None else legal
    return Observation(lane, json.dumps(state).encode(), legal, first, retry=retry, seed=seed)


def long_battle(seed, turns):
    for candidate in range(seed, seed + 200):
        battle = make_battle(candidate, "gen2ou", Style(max_turns=120))
        if len(battle.states) >= turns:
            return battle.states[:turns]
    raise AssertionError("the generator makes no battle that long")


def window_of(turn, longest):
    """Turns of the window that holds turn number `turn` (from 1): the stated rule, counted by hand."""
    length = 0
    for _ in range(turn):
        length = longest // 2 + 1 if length == longest else length + 1
    return length


def test_played_turn_by_turn_the_policy_equals_a_full_forward_over_its_window(agent, tokenizer):
    """Three lanes of different lengths side by side, well past the window of 8."""
    battles = {"a": long_battle(10, 28), "b": long_battle(300, 14), "c": long_battle(600, 23)}
    network = agent.network
    index = network.config.gamma_index()
    logits_seen = {key: [] for key in battles}
    actions = {key: [] for key in battles}
    spied = network.step

    def spy(turns, cache, lanes, with_q=True):
        spy.last = spied(turns, cache, lanes, with_q)
        return spy.last

    network.step = spy
    for turn in range(28):
        live = [key for key in battles if turn < len(battles[key])]
        chosen = agent.choose([seen(key, battles[key][turn], turn == 0) for key in live])
        for row, (key, action) in enumerate(zip(live, chosen, strict=True)):
            logits_seen[key].append(spy.last.logits[row, index].clone())
            actions[key].append(action)
    network.step = spied
    assert [len(agent._lanes[key][1].turns) for key in battles] == [8, 8, 8]  # no more than a window may need
    encoder = Encoder("default", tokenizer)
    for key, states in battles.items():
        live = encoder.live()
        turns = []
        for t, state in enumerate(states):
            words, numbers, legal = live.add(state)
            turns.append((words, numbers, legal, actions[key][t - 1] if t else -1, live.reward("shaped")))
        for t in range(len(states)):
            rows = turns[t + 1 - window_of(t + 1, 8) : t + 1]
            n = len(rows)
            with torch.no_grad():
                out = network(
                    words=torch.tensor(np.stack([r[0] for r in rows]).astype(np.int32)),
                    numbers=torch.tensor(np.stack([r[1] for r in rows])),
                    legal=torch.tensor(np.stack([r[2] for r in rows])),
                    prev_action=torch.tensor([max(r[3], 0) for r in rows]),
                    prev_action_known=torch.tensor([r[3] >= 0 for r in rows]),
                    prev_reward=torch.tensor([r[4] for r in rows], dtype=torch.float32),
                    position=torch.arange(n),
                    segment=torch.zeros(n, dtype=torch.int32),
                    cu_seqlens=torch.tensor([0, n], dtype=torch.int32),
                )
            legal = torch.tensor(rows[-1][2])
            assert torch.allclose(out.logits[-1, index][legal], logits_seen[key][t][legal], atol=1e-4), (key, t)


def test_lanes_that_come_and_go_leave_the_others_as_they_are(agent, tokenizer):
    """Each begins when others are under way, one in a place that another left, one anew under its old name: what is
    thought in each battle is what is thought in it alone."""
    starts = {"a": ("a", 0), "b": ("b", 2), "c": ("c", 3), "b again": ("b", 7), "d": ("d", 13)}
    battles = dict(zip(starts, (long_battle(seed, 12) for seed in (10, 300, 600, 900, 1200)), strict=True))
    battles["b"] = battles["b"][:5]

    def thoughts(acting, names):
        found, kept, plain = {name: [] for name in names}, [], acting._acting
        acting._acting = lambda *given: kept.append(plain(*given)) or kept[-1]
        for at in range(25):
            turns = {name: at - starts[name][1] for name in names if 0 <= at - starts[name][1] < len(battles[name])}
            acting.choose([seen(starts[name][0], battles[name][turn], turn == 0) for name, turn in turns.items()])
            for row, name in enumerate(turns):
                found[name].append(kept[-1][row])
            if turns.get("a") == 11:
                acting.end("a")
        return {name: torch.stack(rows) for name, rows in found.items()}

    both = TurnwiseAgent(agent.network, tokenizer)
    together = thoughts(both, starts)
    assert len(both._lanes) + len(both._free) == len(both._cache.length) == 4
    for name in starts:
        alone = thoughts(TurnwiseAgent(agent.network, tokenizer), [name])
        torch.testing.assert_close(together[name], alone[name], atol=1e-4, rtol=1e-4)


def test_decide_names_the_action_the_values_and_the_discount(agent):
    states = long_battle(10, 28)
    network, spied, outs = agent.network, agent.network.step, []
    network.step = lambda *given: outs.append(spied(*given)) or outs[-1]
    unknown = [-1] * (len(states) - 1)
    decision = agent.decide(states, unknown)
    network.step = spied
    assert decision.gamma == 0.999
    # The critics' mean, at the scale of the rewards as they are, not of training.
    q_values = outs[0].q_values[-1].mean(1) / network.config.reward_scale
    assert decision.q_values == pytest.approx(q_values[network.config.gamma_index()].tolist(), rel=1e-4)
    policies = outs[0].logits[-1].softmax(-1)
    assert list(decision.values.values()) == pytest.approx((policies * q_values).sum(-1).tolist(), rel=1e-4, abs=1e-4)
    assert set(decision.values) == {0.9, 0.99, 0.999, 0.9999}
    assert sum(decision.probabilities) == pytest.approx(1.0)
    assert decision.words == describe_action(states[-1], decision.action)
    assert decision.action == int(np.argmax(decision.probabilities))
    only = np.zeros(13, dtype=bool)
    only[int(np.argmin(np.where(np.array(decision.probabilities) > 0, decision.probabilities, 2)))] = True
    forced = agent.decide(states, unknown, legal=only)
    assert forced.probabilities[forced.action] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="actions"):
        agent.decide(states, actions=[0])
    with pytest.raises(ValueError, match="legal: 4 values: give one for each of 13 actions"):
        agent.decide(states, unknown, legal=only[:4])
    with pytest.raises(ValueError, match="dtype='fp32': give one of float32, bfloat16, float16"):
        TurnwiseAgent.from_pretrained(STARTER, dtype="fp32")
    with pytest.raises(ValueError, match="states"):
        agent.decide([])
    for wrong in (13, -2, 1.5, None):
        with pytest.raises(
            ValueError, match=rf"actions\[1\]: {wrong} is no action: give 0 to 12, or -1 where it is unk"
        ):
            agent.decide(states[:3], actions=[0, wrong])
        with pytest.raises(ValueError, match=rf"actions\[1\]: {wrong} is no action"):
            agent.decide_all(states[:3], [0, wrong, 0])


def test_the_agent_is_told_which_action_was_really_taken(agent):
    states = long_battle(10, 3)
    agent.choose([seen("told", states[0], True)])
    agent.note_action("told", 3)
    agent.choose([seen("told", states[1], False)])
    assert agent._lanes["told"][1].turns[-1]["prev_action"] == 3
    agent.end("told")
    assert "told" not in agent._lanes


def test_a_choice_taken_back_is_decided_again_from_the_same_turn(agent):
    states = long_battle(10, 4)
    plain = [agent.choose([seen("plain", state, t == 0)])[0] for t, state in enumerate(states[:2])]
    chosen = agent.choose([seen("back", states[0], True)])[0]
    assert chosen == plain[0]
    narrower = np.ones(13, dtype=bool)
    narrower[chosen] = False
    other = agent.choose([seen("back", states[0], False, legal=narrower, retry=True)])[0]
    assert other != chosen
    assert agent.refused_mass[0] == pytest.approx(agent.decide(states[:1]).probabilities[chosen], abs=1e-5)
    slot, lane = agent._lanes["back"]
    assert int(agent._cache.length[slot]) == len(lane.turns) == 1
    agent.note_action("back", chosen)
    assert agent.choose([seen("back", states[1], False)])[0] == plain[1]


def test_a_file_holds_a_choice_taken_back_as_the_network_saw_it(tokenizer, simulator, tmp_path):
    """Hidden traps: decided again from the same turn; turns, previous actions and rewards as training reads them."""
    acting = TurnwiseAgent(network_for(tokenizer), tokenizer, temperature=50.0)
    fed, add_turn, find_lane = {}, acting._add_turn, acting._lane

    def lane_of(key, first):
        found = find_lane(key, first)
        fed.setdefault(key, (found[1], []))
        return found

    def spy(lane, state):
        add_turn(lane, state)
        next(turns for known, turns in fed.values() if known is lane).append(lane.turns[-1])

    acting._lane, acting._add_turn = lane_of, spy
    teams = load_teams(simulator, "gen3ou")
    traps = [team.packed for team in teams if "dugtrio" in team.packed.lower()]
    matches = [
        Match(str(n), "gen3ou", (acting, RandomAgent()), n, (teams[n].packed, traps[0]), explore=(0.3, 0.0))
        for n in range(6)
    ]
    encoder, retries = Encoder("default", tokenizer), 0
    for outcome in play(simulator, matches, lanes=3):
        retries += outcome.unavailable
        path = Recorder(tmp_path, run="t", version="0").record(outcome)[0]
        battle = read_battle(path)
        _, turns = fed[f"{outcome.match.id}/0"]
        assert len(turns) == len(battle.states) - 1 == len(outcome.views[0].legal) - 1
        encoded = encoder.encode(battle.states, battle.actions)
        for t, turn in enumerate(turns):
            assert np.array_equal(turn["words"], encoded.words[t])
            assert outcome.views[0].legal[t] >> battle.actions[t] & 1
            if t:
                assert turn["prev_action"] == encoded.action[t - 1] == battle.actions[t - 1]
                assert turn["prev_reward"] == encoded.rewards["shaped"][t - 1]
        explored = outcome.views[0].explored
        assert explored == sorted(set(explored))
    assert retries > 3


def test_action_words():
    state = make_battle(3, "gen9ou").states[0]
    moves = sorted(move["name"] for move in state["player_active_pokemon"]["moves"])
    bench = sorted(pokemon["name"] for pokemon in state["available_switches"])
    assert describe_action(state, 1) == f"use {moves[1]}"
    assert describe_action(state, 10) == f"terastallize and use {moves[1]}"
    assert describe_action(state, 6) == f"switch to {bench[2]}"


def test_sampling_is_a_function_of_the_seed(tokenizer):
    states = long_battle(10, 12)

    def play(seed):
        agent = TurnwiseAgent(network_for(tokenizer), tokenizer, temperature=2.0, seed=seed)
        return [agent.choose([seen("x", state, t == 0)])[0] for t, state in enumerate(states)]

    assert play(5) == play(5)
    assert any(play(5) != play(seed) for seed in range(6, 10))


def test_equal_turns_are_drawn_apart_and_near_temperature_0_they_are_not(agent, tokenizer):
    """By the battle's seed, the turn's place and whether its choice was taken back; a lone state by what stands in it.
    At this heat all choices are equally likely, so that one number would give one action."""
    hot = TurnwiseAgent(agent.network, tokenizer, temperature=1e6)
    state, lanes = long_battle(10, 1)[0], range(16)
    chosen = hot.choose([seen(lane, state, True, seed=lane) for lane in lanes])
    assert len(set(chosen)) > 1
    assert hot.choose([seen(lane, state, False, retry=True, seed=lane) for lane in lanes]) != chosen
    assert len({hot.choose([seen("same", state, turn == 0)])[0] for turn in lanes}) > 1
    hurt = [{**state, "player_active_pokemon": {**state["player_active_pokemon"], "hp_pct": n / 16}} for n in lanes]
    assert len({hot.decide([one]).action for one in hurt}) > 1
    cool = TurnwiseAgent(agent.network, tokenizer, temperature=1e-6)
    assert [cool.decide([one]).action for one in hurt] == [agent.decide([one]).action for one in hurt]


def test_decisions_are_drawn_from_the_policy_each_by_a_number_of_its_own(tokenizer):
    """Over many states the cumulative shares of what is chosen cover 0 to 1: no one number draws for all of them."""
    acting = TurnwiseAgent(network_for(tokenizer), tokenizer, temperature=1.0, seed=3)
    states = long_battle(10, 28)
    decisions = acting.decide_all(states, [-1] * len(states))
    below = [sum(d.probabilities[: d.action]) for d in decisions]
    above = [low + d.probabilities[d.action] for low, d in zip(below, decisions, strict=True)]
    assert max(below) > min(above)
    assert [d.action for d in acting.decide_all(states, [-1] * len(states))] == [d.action for d in decisions]
    assert acting.decide(states).action == decisions[-1].action
    assert acting.decide_all([], []) == []
    repeated = acting.decide_all([states[0]] * 28, [-1] * 28)
    assert len({d.action for d in repeated}) > 1


def test_the_acting_policy_is_the_cloned_one_tilted_by_its_critics(tokenizer):
    """π(a)·exp(β·Q(a)) over the legal actions, from what the plain agent says; β is the model's if not given."""
    states = long_battle(10, 20)
    nothing = [-1] * len(states)
    plain = TurnwiseAgent(network_for(tokenizer), tokenizer).decide_all(states, nothing)
    for beta in (0.3, 2.0, 1e4):
        tilted = TurnwiseAgent(network_for(tokenizer), tokenizer, beta=beta)
        as_saved = TurnwiseAgent(network_for(tokenizer, act_beta=beta), tokenizer)
        thoughts = tilted.decide_all(states, nothing)
        for before, after in zip(plain, thoughts, strict=True):
            q = np.array(before.q_values)
            weight = np.array(before.probabilities) * np.exp(beta * (q - q.max()))
            if weight.sum() > 0:  # at the largest β all of it may underflow
                assert after.probabilities == pytest.approx((weight / weight.sum()).tolist(), abs=1e-5)
                assert after.action == int(weight.argmax())
            assert (after.beta, after.values, after.q_values) == (beta, before.values, before.q_values)
        allowed = [np.where(np.array(d.probabilities) > 0, d.q_values, -np.inf) for d in plain]
        if beta == 1e4:  # so far that the critics alone decide
            assert [d.action for d in thoughts] == [int(q.argmax()) for q in allowed]
        assert [d.action for d in thoughts] != [d.action for d in plain]
        for one in (tilted, as_saved):
            played = [one.choose([seen("x", states[t], t == 0)])[0] for t in range(8)]
            assert played[0] == thoughts[0].action
            assert played == [one.decide(states[: t + 1], played[:t]).action for t in range(8)]
    untilted = TurnwiseAgent(network_for(tokenizer, act_beta=5.0), tokenizer, beta=0.0).decide_all(states, nothing)
    assert [d.action for d in untilted] == [d.action for d in plain]


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf")])
def test_a_beta_that_is_none_is_refused(tokenizer, beta):
    with pytest.raises(ValueError, match=f"beta={beta}: give a number of 0 or more"):
        TurnwiseAgent(network_for(tokenizer), tokenizer, beta=beta)
    with pytest.raises(ValueError, match=f"config.act_beta={beta}: give a number of 0 or more"):
        network_for(tokenizer, act_beta=beta)


def test_a_seed_or_device_that_cannot_be_is_refused(tokenizer):
    with pytest.raises(ValueError, match="seed=-1: give a whole number of 0 or more"):
        TurnwiseAgent(network_for(tokenizer), tokenizer, seed=-1)
    for device in ("cuda:99", "nowhere"):
        with pytest.raises(ValueError, match=f"starter: device={device}: .*: give cpu, or a device that is here"):
            TurnwiseAgent.from_pretrained(STARTER, device=device)


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(tokenizer, temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature}: give a number of 0 or more"):
        TurnwiseAgent(network_for(tokenizer), tokenizer, temperature=temperature)


def test_another_vocabulary_is_refused_by_name(tokenizer):
    network = network_for(tokenizer)
    network.config.vocabulary_hash = "0" * 64
    with pytest.raises(ValueError, match="vocabulary_hash"):
        TurnwiseAgent(network, tokenizer)
    network = network_for(tokenizer)
    network.config.schema_version += 1
    with pytest.raises(ValueError, match="schema_version is"):
        TurnwiseAgent(network, tokenizer)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        TurnwiseAgent.from_pretrained("tests")
    with pytest.raises(FileNotFoundError, match=r"^no/such/run: no such folder: give a saved model"):
        TurnwiseAgent.from_pretrained("no/such/run")


def test_of_a_run_without_its_finished_agent_the_newest_whole_checkpoint_plays(tmp_path):
    for step in (9, 100, 11):
        (tmp_path / f"step_{step:08}" / "model").mkdir(parents=True)
        (tmp_path / f"step_{step:08}" / "model" / "config.json").touch()
        (tmp_path / f"step_{step:08}" / "manifest.json").touch()
    (tmp_path / "step_00000101" / "model").mkdir(parents=True)
    (tmp_path / "step_00000101" / "model" / "config.json").touch()  # without a manifest: not finished
    assert model_folder(tmp_path) == tmp_path / "step_00000100" / "model"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    assert model_folder(tmp_path) == tmp_path / "model"
    (tmp_path / "config.json").touch()
    assert model_folder(tmp_path) == tmp_path


def test_loading_an_agent_draws_no_bar(agent, tokenizer, tmp_path, capsys):
    export_model(agent.network, tokenizer, tmp_path)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1  # safetensors hides what it writes
    enable_progress_bar()
    TurnwiseAgent.from_pretrained(tmp_path)
    assert "Loading weights" not in capsys.readouterr().err
    assert is_progress_bar_enabled()


def test_command_reads_states_and_prints_a_decision(agent, tokenizer, tmp_path, capsys):
    export_model(agent.network, tokenizer, tmp_path / "model")
    state = make_battle(3, "gen9ou").states[0]
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state))
    assert main(["--checkpoint", str(tmp_path), "--state", str(path)]) == 0
    out = capsys.readouterr().out
    printed = json.loads(out[out.index("{\n") :])
    assert printed["words"] == describe_action(state, printed["action"])
    battle = make_battle(6, "gen9ou")
    for actions in (battle.actions, battle.actions[:-1]):  # a battle file tells the last one's too, as a blank
        path.write_text(json.dumps({"states": battle.states, "actions": actions}))
        assert main(["--checkpoint", str(tmp_path), "--state", str(path)]) == 0
        out = capsys.readouterr().out
        found = json.loads(out[out.index("{\n") :])["q_values"]
        assert found == agent.decide(battle.states, battle.actions[:-1]).q_values
        with pytest.warns(UserWarning, match=f"none given for {len(battle.states)} states"):
            assert found != agent.decide(battle.states).q_values
    path.write_text(json.dumps(state))
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert main(["--checkpoint", str(tmp_path), "--state", str(path)]) == 1
    said = capsys.readouterr().err
    assert "is cut or spoilt" in said
    assert f"error: {path}" not in said  # the state is not what is wrong
    weights.write_bytes(whole)
    del state["weather"]
    path.write_text(json.dumps(state))
    assert main(["--checkpoint", str(tmp_path), "--state", str(path)]) == 1
    assert "weather" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path), "--state", str(tmp_path / "none.json")]) == 1
    assert "none.json: [Errno 2] No such file" in capsys.readouterr().err
