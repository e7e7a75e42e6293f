"""Which battles a run plays: couples of battles, leads and seeds."""

from dataclasses import replace
from itertools import permutations

from battle.schedule import leads, pair, seed_of
from battle.teams import Team

TEAMS = [Team(name, f"packed {name}") for name in "abcd"]


def test_a_pair_is_one_battle_seen_from_either_chair():
    first, second = pair("12", "gen9ou", ("me", "you"), TEAMS, 7, "random")
    assert (first.id, second.id) == ("12a", "12b")
    assert (first.agents, second.agents) == (("me", "you"), ("you", "me"))
    assert replace(second, id="12a", agents=first.agents) == first
    assert first.teams == tuple(f"packed {name}" for name in first.team_names)
    # Over many seeds every two teams meet, either way round, and none itself.
    drawn = [pair("x", "gen9ou", ("me", "you"), TEAMS, seed, "first")[0].team_names for seed in range(300)]
    assert set(drawn) == set(permutations("abcd", 2))
    assert drawn[7] == ("c", "d")  # pinned, as leads below: others would be other battles
    assert pair("x", "gen9ou", ("me", "you"), TEAMS[:1], 7, "first")[0].team_names == ("a", "a")


def test_leads_are_the_first_or_drawn_from_all_six():
    assert {leads(seed, "first") for seed in range(20)} == {(0, 0)}
    drawn = {seed: leads(seed, "random") for seed in range(300)}
    assert set(drawn.values()) == {(a, b) for a in range(6) for b in range(6)}
    assert drawn == {seed: leads(seed, "random") for seed in range(300)}
    assert drawn[7] == (4, 5)
    assert leads(7, "chosen") == (None, None)
    for rule in ("first", "random", "chosen"):
        match, _ = pair("x", "gen9ou", ("me", "you"), TEAMS, 7, rule)
        assert (match.lead_rule, match.leads, match.seed) == (rule, leads(7, rule), 7)


def test_a_seed_is_of_its_parts_in_their_order():
    assert seed_of("selfplay", 0, 12) == 579162836091050541  # pinned: another would play other battles
    parts = [("a", "bc"), ("ab", "c"), ("c", "ab"), ("a", 1), ("a", 11), ("a", 1, 1)]
    seeds = {seed_of(*one) for one in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in {seed_of(number) for number in range(200)})
