"""The encoder: layout, live play equal to training, old files, next battle's tail, action rules."""

import copy
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.encode import Encoder
from data.observation import BLANK, SPACES, ObservationSpace
from data.reward import Facts, transition
from data.schema import BadBattle, legal_actions, state_from_dict
from data.tokenizer import GrowingTokenizer, Tokenizer
from tests.battle_files import Style, legal_ids, make_battle

SIZES = {"default": (87, 48), "expanded": (100, 55), "teampreview": (106, 55), "opponentmove": (106, 55)}
TOKENIZER = Tokenizer.load()
seeds = st.integers(0, 10_000)
spaces = st.sampled_from(sorted(SPACES))


def encode(battle, space="default", **options):
    return Encoder(space, TOKENIZER, **options).encode(battle.states, battle.actions)


@pytest.mark.parametrize("space", SPACES)
def test_sizes(space):
    assert (SPACES[space].n_words, SPACES[space].n_numbers) == SIZES[space]


@pytest.mark.parametrize("flags", itertools.product([False, True], repeat=4))
def test_every_combination_of_a_spaces_flags_is_a_space(flags):
    """For one of somebody's own: what each flag adds hangs on no other."""
    names = ("tera", "preview", "move_category", "opponent_moves")
    space = ObservationSpace("mine", **dict(zip(names, flags, strict=True)))
    battle = make_battle(5, "gen9ou", Style(max_turns=20))
    tokenizer = GrowingTokenizer()
    encoded = Encoder(space, tokenizer).encode(battle.states, battle.actions)
    assert encoded.words.shape == (len(battle.states), space.n_words)
    assert encoded.numbers.shape == (len(battle.states), space.n_numbers)
    first = tokenizer.words_of(encoded.words[0])
    shown = [first[place] for place, slot in enumerate(space.word_slots) if slot.name.startswith("preview_")]
    team = sorted(battle.states[0]["opponent_teampreview"]) if space.preview else []
    assert [word for word in shown if word != BLANK] == team


@pytest.mark.parametrize("space", SPACES)
def test_layout_puts_every_slot_in_one_group(space):
    recipe = SPACES[space]
    groups = recipe.layout["groups"]
    assert [group["name"] for group in groups] == ["move", "switch", "player", "opponent", "field"]
    assert [len(group["words"]) for group in groups] == [4, 5, 1, 1, 1]
    words = [place for group in groups for row in group["words"] for place in row]
    numbers = [place for group in groups for row in group["numbers"] for place in row]
    literal = {i for i, slot in enumerate(recipe.word_slots) if slot.group == ""}
    assert sorted(words) == sorted(set(range(recipe.n_words)) - literal)
    assert sorted(numbers) == list(range(recipe.n_numbers))
    assert groups[0]["actions"] == [[0, 9], [1, 10], [2, 11], [3, 12]]
    assert groups[1]["actions"] == [[4], [5], [6], [7], [8]]


@pytest.mark.parametrize("space", SPACES)
def test_layout_points_at_the_right_words(space):
    """The slots' names against a state's own values, so that layout and encoder cannot drift apart."""
    battle = make_battle(5, "gen9ou", Style(max_turns=40))
    tokenizer = GrowingTokenizer()
    encoded = Encoder(space, tokenizer).encode(battle.states, battle.actions)
    for turn, state in enumerate(battle.states):
        text = tokenizer.words_of(encoded.words[turn])
        own, other = state["player_active_pokemon"], state["opponent_active_pokemon"]
        bench = sorted(state["available_switches"], key=lambda pokemon: pokemon["name"])
        moves = sorted(own["moves"], key=lambda move: move["name"])
        for place, slot in enumerate(SPACES[space].word_slots):
            if slot.group == "":
                # An empty switch slot blanks its <moveset> too.
                empty = slot.name == "<moveset>" and text[place - 1] == BLANK
                assert text[place] == (BLANK if empty else slot.name)
            elif slot.group == "move":
                key = {"name": "name", "type": "move_type", "category": "category"}[slot.name]
                assert text[place] == moves[slot.row][key]
            elif slot.group == "switch":
                pokemon = bench[slot.row] if slot.row < len(bench) else None
                if pokemon is None:
                    assert text[place] == BLANK
                elif slot.name in pokemon:
                    assert text[place] == pokemon[slot.name]
            elif slot.group in ("player", "opponent") and slot.name in own:
                assert text[place] == (own if slot.group == "player" else other)[slot.name]
        for place, slot in enumerate(SPACES[space].number_slots):
            if slot.group in ("player", "opponent"):
                value = (own if slot.group == "player" else other)[slot.name]
                assert encoded.numbers[turn, place] == np.float32(value / slot.divisor)


@settings(max_examples=60, deadline=None)
@given(seeds, spaces)
def test_live_play_equals_training_bit_by_bit(seed, space):
    battle = make_battle(seed)
    encoder = Encoder(space, TOKENIZER)
    encoded = encoder.encode(battle.states, battle.actions)
    live = encoder.live()
    for turn in range(len(encoded)):
        given_state = battle.states[turn] if turn % 2 else state_from_dict(battle.states[turn])
        words, numbers, legal = live.add(given_state)
        assert np.array_equal(words, encoded.words[turn])
        assert words.dtype == np.uint16
        assert numbers.tobytes() == encoded.numbers[turn].tobytes()
        assert np.array_equal(legal, encoded.legal[turn])
        for kind, rewards in encoded.rewards.items():
            assert live.reward(kind) == (rewards[turn - 1] if turn else 0.0)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_arrays_agree_with_the_format(seed):
    battle = make_battle(seed)
    encoded = encode(battle)
    n = len(battle.states) - battle.style.next_battle_tail
    assert len(encoded) == n
    assert encoded.dropped_tail == battle.style.next_battle_tail
    assert encoded.action[-1] == -1
    assert encoded.n_unknown == 0
    assert np.isfinite(encoded.numbers).all()
    assert encoded.won == battle.states[n - 1]["battle_won"]
    for turn in range(n):
        assert np.flatnonzero(encoded.legal[turn]).tolist() == legal_ids(battle.states[turn])
        assert np.array_equal(encoded.legal[turn], legal_actions(state_from_dict(battle.states[turn])))
        assert encoded.forced[turn] == battle.states[turn]["forced_switch"]
    for turn in range(n - 1):
        if encoded.action[turn] >= 0:
            assert encoded.action[turn] == battle.actions[turn]
            assert encoded.legal[turn, encoded.action[turn]]


@settings(max_examples=30, deadline=None)
@given(seeds, spaces, st.randoms(use_true_random=False))
def test_order_of_lists_in_the_file_does_not_matter(seed, space, rng):
    battle = make_battle(seed)
    shuffled = copy.deepcopy(battle)
    for state in shuffled.states:
        rng.shuffle(state["available_switches"])
        rng.shuffle(state["player_active_pokemon"]["moves"])
        if "opponent_teampreview" in state:
            rng.shuffle(state["opponent_teampreview"])
    a, b = encode(battle, space), encode(shuffled, space)
    assert np.array_equal(a.words, b.words)
    assert np.array_equal(a.numbers, b.numbers)


@settings(max_examples=30, deadline=None)
@given(seeds, spaces)
def test_later_states_change_no_earlier_row(seed, space):
    battle = make_battle(seed, style=Style(max_turns=30))
    whole = encode(battle, space)
    half = max(2, len(battle.states) // 2)
    part = Encoder(space, TOKENIZER).encode(battle.states[:half], battle.actions[:half])
    assert np.array_equal(part.words, whole.words[:half])
    assert np.array_equal(part.numbers, whole.numbers[:half])


def test_of_more_moves_than_four_the_first_four_are_seen():
    """As the reference has it, which sorts those."""
    four, more = (make_battle(5, "gen9ou", Style(max_turns=12)) for _ in range(2))
    for battle in (four, more):
        for state in battle.states:
            state["opponent_active_pokemon"]["moves"] = copy.deepcopy(state["player_active_pokemon"]["moves"])
    for state in more.states:
        for side in ("player_active_pokemon", "opponent_active_pokemon"):
            state[side]["moves"].append({**state[side]["moves"][0], "name": "acid"})  # before them all by its name
    a, b = encode(four, "opponentmove"), encode(more, "opponentmove")
    assert np.array_equal(a.words, b.words)
    assert np.array_equal(a.numbers, b.numbers)
    assert np.array_equal(a.legal, b.legal)


def test_a_preview_is_the_states_own():
    battle = make_battle(5, "gen9ou", Style(max_turns=6))
    previews = [[], ["gengar", "alakazam"], ["snorlax"], ["snorlax"], [], ["rhydon"]]
    for state, preview in zip(battle.states, previews, strict=True):
        state["opponent_teampreview"] = preview
    space = SPACES["teampreview"]
    places = [place for place, slot in enumerate(space.word_slots) if slot.name.startswith("preview_")]
    for row, preview in zip(encode(battle, "teampreview").words, previews, strict=True):
        assert [word for word in TOKENIZER.words_of(row[places]) if word != BLANK] == sorted(preview)


def test_caches_change_nothing():
    """An encoder that has seen other battles gives what a fresh one gives."""
    battles = [make_battle(seed) for seed in range(30)]
    random.Random(1).shuffle(battles)
    used = Encoder("opponentmove", TOKENIZER)
    for battle in battles:
        a = used.encode(battle.states, battle.actions)
        b = Encoder("opponentmove", TOKENIZER).encode(battle.states, battle.actions)
        assert np.array_equal(a.words, b.words)
        assert np.array_equal(a.numbers, b.numbers)
        assert a.team == b.team


def test_old_files_take_the_defaults():
    battle = make_battle(3, "gen1ou", Style(old_schema=True, max_turns=20))
    state = state_from_dict(battle.states[0])
    assert state.can_tera is False
    assert state.opponent_teampreview == []
    assert state.player_active_pokemon.tera_type == "notype"
    assert state.player_active_pokemon.base_species == state.player_active_pokemon.name
    encode(battle, "opponentmove")


def test_base_species_of_old_files_ends_at_the_hyphen():
    battle = make_battle(3, "gen4ou", Style(old_schema=True, max_turns=20))
    battle.states[0]["player_active_pokemon"]["name"] = "rotom-heat"
    assert state_from_dict(battle.states[0]).player_active_pokemon.base_species == "rotom"


def test_a_fresh_last_state_with_a_fresh_one_before_it_is_kept():
    battle = make_battle(7, style=Style(max_turns=20))
    first = copy.deepcopy(battle.states[0])
    encoded = Encoder("default", TOKENIZER).encode([first, copy.deepcopy(first)], [-1, -1])
    assert not encoded.dropped_tail
    assert len(encoded) == 2


def test_a_last_state_is_the_next_battles_only_where_nothing_happened_in_it():
    """Else a battle's own last state is lost, or another battle's is kept: each sign alone decides."""
    battle = make_battle(7, "gen1ou", Style(next_battle_tail=True, max_turns=12))
    n = len(battle.states)
    moved = next(state["player_prev_move"] for state in battle.states if state["player_prev_move"]["name"] != "nomove")

    def changed(place, **values):
        states = copy.deepcopy(battle.states)
        for path, value in values.items():
            *keys, last = path.split("__")
            part = states[place]
            for key in keys:
                part = part[int(key) if key.isdigit() else key]
            part[last] = value
        return Encoder("default", TOKENIZER).encode(states, [-1] * n)

    assert changed(-1).dropped_tail
    assert len(changed(-1)) == n - 1
    for own in (
        {"opponents_remaining": 5}, {"player_prev_move": moved}, {"opponent_prev_move": moved},
        {"forced_switch": True, "available_switches": battle.states[-1]["available_switches"]},
        {"player_active_pokemon__hp_pct": 0.99}, {"player_active_pokemon__status": "par"},
        {"available_switches__2__hp_pct": 0.5}, {"available_switches__4__status": "slp"},
        {"available_switches": battle.states[-1]["available_switches"][:4]},
        {"battle_lost": True}, {"battle_won": True},
    ):  # fmt: skip
        encoded = changed(-1, **own)
        assert not encoded.dropped_tail, own
        assert len(encoded) == n
    # The state before it: as untouched, but of a hurt team; a whole team, but that has moved.
    fresh = copy.deepcopy(battle.states[-1])
    untouched = {key: fresh[key] for key in ("player_prev_move", "opponent_prev_move", "opponents_remaining")}
    whole = {key: fresh[key] for key in ("player_active_pokemon", "available_switches")}
    hurt = {"player_active_pokemon__hp_pct": 0.5, "forced_switch": False}
    assert changed(-2, **untouched, **hurt).dropped_tail
    assert changed(-2, **whole, player_prev_move=moved).dropped_tail
    assert not changed(-2, **untouched, **whole, forced_switch=False).dropped_tail


def test_a_battle_of_one_state_and_the_next_battles_first_is_none():
    battle = make_battle(7, "gen1ou", Style(next_battle_tail=True, max_turns=12))
    with pytest.raises(BadBattle, match="one state of its own battle"):
        Encoder("default", TOKENIZER).encode(battle.states[-2:], [-1, -1])


def test_cut_short_is_neither_won_nor_lost():
    battle = make_battle(9, style=Style(cut_short=True))
    encoded = encode(battle)
    assert not encoded.won
    assert not encoded.lost
    assert encoded.rewards["binary"].sum() == 0


@pytest.mark.parametrize("action", [13, -2, 99, True, 1.0, None])
def test_actions_out_of_range_are_refused(action):
    battle = make_battle(1, style=Style())
    for turn in (0, len(battle.actions) - 1):  # the last stands for shape alone, but is an action all the same
        actions = [-1] * len(battle.actions)
        actions[turn] = action
        for rule in ("reject", "unrecorded"):
            with pytest.raises(BadBattle, match=rf"actions\[{turn}\].* is no action"):
                Encoder("default", TOKENIZER, rule).encode(battle.states, actions)


def test_illegal_actions_are_refused_or_taken_as_unrecorded():
    battle = make_battle(1, "gen1ou", Style())
    battle.actions[0] = 9
    with pytest.raises(BadBattle, match="illegal"):
        encode(battle)
    encoded = encode(battle, illegal="unrecorded")
    assert encoded.n_illegal == 1
    assert encoded.action[0] == -1


def test_an_action_where_nothing_is_legal_is_a_placeholder():
    battle = make_battle(2, style=Style(empty_legal=True, noise=0.0))
    turn = next(t for t, state in enumerate(battle.states) if not legal_ids(state))
    battle.actions[turn] = 0
    encoded = encode(battle)
    assert encoded.n_placeholder == 1
    assert encoded.action[turn] == -1
    assert not encoded.legal[turn].any()


def test_wrong_lengths_and_results_are_refused():
    battle = make_battle(1, style=Style())
    n = len(battle.states)
    for count in (n - 2, n + 1):
        with pytest.raises(BadBattle, match=f"{count} actions for {n} states"):
            Encoder("default", TOKENIZER).encode(battle.states, [-1] * count)
    for count in (n - 1, n):  # an n-th stands for shape alone, whatever it is
        actions = [*[-1] * (n - 1), 12][:count]
        assert Encoder("default", TOKENIZER).encode(battle.states, actions).action.tolist() == [-1] * n
    for states in ([], battle.states[:1]):
        with pytest.raises(BadBattle, match="states"):
            Encoder("default", TOKENIZER).encode(states, [-1] * len(states))
    for turn in (1, n - 2):
        early = copy.deepcopy(battle)
        early.states[turn]["battle_won"] = True
        with pytest.raises(BadBattle, match="over before"):
            encode(early)
    battle.states[-1]["battle_won"] = battle.states[-1]["battle_lost"] = True
    with pytest.raises(BadBattle, match="both won and lost"):
        encode(battle)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("player_active_pokemon", "hp_pct"), 1.5, "hp_pct"),
        (("player_active_pokemon", "atk_boost"), 7, "atk_boost"),
        (("opponent_active_pokemon", "types"), "fire", "types"),
        (("weather",), 3, "weather"),
        (("opponents_remaining",), 7, "opponents_remaining"),
        (("available_switches",), [{}], "available_switches"),
        (("player_active_pokemon", "hp_pct"), float("nan"), "hp_pct"),
    ],
)
def test_bad_states_name_their_field_and_turn(path, value, field):
    battle = make_battle(1, style=Style())
    place = battle.states[1]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(BadBattle) as error:
        encode(battle)
    assert field in error.value.field


def test_unknown_words_are_counted():
    battle = make_battle(1, style=Style(max_turns=10))
    for state in battle.states:
        state["weather"] = "frogs"
    assert encode(battle).n_unknown == len(battle.states)


def test_reserved_words_in_a_file_do_not_become_padding():
    battle = make_battle(1, style=Style(max_turns=10))
    battle.states[0]["weather"] = "<pad>"
    encoded = encode(battle)
    assert (encoded.words != TOKENIZER.pad_id).all()
    assert encoded.n_unknown == 1


def test_a_turns_reward_counts_one_fainted_and_none_that_came_back():
    """As the reference has it: two that fall in one turn are one, and a revived one takes nothing back."""
    before = Facts("gengar", 1.0, "nostatus", {}, 0, "chansey", 1.0, "nostatus", 4, False, False)
    for remaining, fainted in ((4, 0), (3, 1), (2, 1), (5, 0)):
        assert transition(before, before._replace(opponents_remaining=remaining)) == (fainted, 2 * fainted, 0)
