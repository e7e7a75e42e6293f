"""Drafted teams: of six species each, of sets that the given teams hold, the same for the same seed, few too few."""

from types import SimpleNamespace

import pytest

from battle.draft import SIZE, drafted
from battle.errors import InvalidTeam
from battle.teams import Team, load_teams


def sets_of(team):
    return team.packed.split("]")


@pytest.mark.parametrize("battle_format", ["gen1ou", "gen4ou", "gen9ou"])
def test_line_ups_are_new_and_their_sets_are_not(simulator, battle_format):
    teams = load_teams(simulator, battle_format)
    found = drafted(simulator, battle_format, teams, 30, 7)
    known = {one for team in teams for one in sets_of(team)}
    line_ups = {frozenset(sets_of(team)) for team in found}
    assert len(found) == len({team.name for team in found}) == 30
    assert all(set(sets_of(team)) <= known for team in found)
    assert all(len({one.split("|")[1] or one.split("|")[0] for one in sets_of(team)}) == SIZE for team in found)
    assert len(line_ups - {frozenset(sets_of(team)) for team in teams}) >= 28
    assert found == drafted(simulator, battle_format, teams, 30, 7)
    assert found != drafted(simulator, battle_format, teams, 30, 8)


def test_random_formats_draft_none_and_too_few_sets_are_told(simulator):
    assert drafted(simulator, "gen9randombattle", [Team("random", None)], 5, 0) == []
    teams = load_teams(simulator, "gen1ou")
    few = Team("few", "]".join(sets_of(teams[0])[:4]))
    with pytest.raises(InvalidTeam, match="0 of 2 teams could be drafted"):
        drafted(simulator, "gen1ou", [few], 2, 0)
    assert drafted(simulator, "gen1ou", teams, 0, 0) == []
    barred = Team("barred", "]".join([*sets_of(teams[0])[:5], "Mewtwo|||NoAbility|psychic|||||||"]))
    with pytest.raises(InvalidTeam, match=r"0 of 1 teams could be drafted.*last: drafted team 0: .*Mewtwo"):
        drafted(simulator, "gen1ou", [barred], 1, 0)


def test_a_species_is_drafted_once_whatever_its_nicknames():
    teams = [Team(name, "]".join(f"{name}{n}|species{n}|" for n in range(SIZE))) for name in ("Ann", "Bob")]
    unasked = SimpleNamespace(pack_team=lambda battle_format, packed, source: packed)
    found = drafted(unasked, "gen1ou", teams, 20, 0)
    assert {len({one.split("|")[1] for one in sets_of(team)}) for team in found} == {SIZE}
    assert any({one[:3] for one in sets_of(team)} == {"Ann", "Bob"} for team in found)
