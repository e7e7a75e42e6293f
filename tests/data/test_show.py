"""One battle as text: what a turn's lines tell."""

import pytest

from data.replay_file import read_battle
from data.show import action_words, show_lines
from tests.battle_files import Style, legal_ids, make_battle, write_battle


def shown(tmp_path, battle):
    """The head's lines, and each turn's."""
    head, *turns = "\n".join(show_lines(write_battle(tmp_path, battle))).split("\n\n")
    return head.splitlines(), [turn.splitlines() for turn in turns]


def test_a_renamed_file_is_a_battle_all_the_same(tmp_path):
    battle = make_battle(9, "gen9ou", Style(max_turns=5))
    renamed = write_battle(tmp_path, battle).rename(tmp_path / "re named.json.lz4")
    head, *turns = "\n".join(show_lines(renamed)).split("\n\n")
    assert head in ("gen9ou: won", "gen9ou: lost", "gen9ou: cut short: no result")
    assert len(turns) == len(battle.states)


def test_both_sides_and_the_field(tmp_path):
    battle = make_battle(9, "gen9ou", Style(max_turns=5))
    state = battle.states[0]
    own, foe = state["player_active_pokemon"], state["opponent_active_pokemon"]
    own.update(name="snorlax", hp_pct=0.46, status="par", effect="curse", item="leftovers")
    own.update(atk_boost=2, evasion_boost=-1)
    own["moves"] = [dict(own["moves"][0], name=name) for name in ("toxic", "crunch", "psychic")]
    foe.update(name="gengar", hp_pct=1.0, status="nostatus", effect="noeffect", item="unknownitem", moves=[])
    state.update(weather="raindance", opponent_conditions="spikes", opponents_remaining=5)
    state["available_switches"] = [
        dict(state["available_switches"][0], name=name, hp_pct=share) for name, share in (("zapdos", 0.07), ("aero", 1))
    ]
    _, turns = shown(tmp_path, battle)
    assert turns[0][:4] == [
        "turn 0  (raindance, foe's side: spikes)",
        "  own  snorlax        [######......]  46%  par  curse  atk+2  evasion-1  @ leftovers  crunch/psychic/toxic",
        "       bench: aero 100%, zapdos 7%",
        "  foe  gengar         [############] 100%  @ unknownitem  no move seen  (5 left)",
    ]
    battle.states[0].update(weather="noweather", player_conditions="reflect", opponent_conditions="noconditions")
    battle.states[0].update(available_switches=[], battle_field="trickroom")
    battle.actions[0] = 0
    _, turns = shown(tmp_path, battle)
    assert turns[0][0] == "turn 0  (trickroom, own side: reflect)"
    assert turns[0][2].startswith("  foe  ")


def test_a_decision_is_told_with_what_it_led_to(tmp_path):
    battle = make_battle(11, "gen9ou", Style(max_turns=60))
    _, turns = shown(tmp_path, battle)
    kinds = set()
    assert len(turns) == len(battle.states)
    for place, (state, action, lines) in enumerate(zip(battle.states[:-1], battle.actions, turns, strict=False)):
        moves = sorted(move["name"] for move in state["player_active_pokemon"]["moves"])
        bench = sorted(pokemon["name"] for pokemon in state["available_switches"])
        forced = state["forced_switch"]
        if action >= 9:
            told = f"{moves[action - 9]} and terastallize"
        else:
            told = moves[action] if action < 4 else f"switch to {bench[action - 4]}"
        kinds.add((action >= 4, action >= 9, forced))
        start = f"  -> {told}{' (forced)' if forced else ''}  of {len(legal_ids(state))} legal; reward "
        assert lines[-1].startswith(start), place
    assert len(kinds) == 4
    rewards = [float(lines[-1].rsplit(" ", 1)[1]) for lines in turns[:-1]]
    assert len(set(rewards)) > 5
    assert abs(rewards[-1]) > 50  # the end's, in the line of the decision that led to it
    assert "->" not in turns[-1][-1]


@pytest.mark.parametrize(
    ("style", "result"),
    [
        (Style(max_turns=200), None),
        (Style(max_turns=8, cut_short=True), "cut short: no result"),
        (Style(max_turns=8, next_battle_tail=True), "cut short: no result"),
    ],
)
def test_the_head_tells_whose_battle_and_how_it_ended(tmp_path, style, result):
    ended = set()
    for seed in range(8, 14):
        battle = make_battle(seed, "gen1ou", style)
        told = result or ("won" if battle.states[-1]["battle_won"] else "lost")
        ended.add(told)
        head, turns = shown(tmp_path, battle)
        assert head[0] == f"gen1ou  {battle.battle_id}  {battle.date}"
        players = f"{battle.player} ({battle.rating.lower()}) against {battle.opponent}"
        assert head[1] == f"{players}: {told} (the name says {battle.result})"
        dropped = style.next_battle_tail
        assert head[2:] == (["the last state was the next battle's first: dropped"] if dropped else [])
        assert len(turns) == len(battle.states) - dropped
    assert ended == ({"won", "lost"} if result is None else {result})


def test_of_more_than_four_moves_the_first_four_are_chosen_among(tmp_path):
    battle = make_battle(9, "gen9ou", Style(max_turns=5))
    own = battle.states[0]["player_active_pokemon"]
    own["moves"] = [dict(own["moves"][0], name=name) for name in ("toxic", "crunch", "surf", "psychic", "acid")]
    (state, *_) = read_battle(write_battle(tmp_path, battle)).states
    assert [action_words(state, action) for action in (0, 3, 9, 12)] == [
        "crunch", "toxic", "crunch and terastallize", "toxic and terastallize",
    ]  # fmt: skip
    assert action_words(state, -1) == "not recorded"
