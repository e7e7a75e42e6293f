"""Teams: our own, anybody's, and those of formats in which nobody wrote any."""

import pytest

from battle.errors import InvalidTeam
from battle.sample import FORMATS
from battle.teams import Team, load_teams, team_files

QUICK = ["gen1uu", "gen2zu", "gen8ou", "gen91v1"]
OTHERS = [f"gen{generation}{tier}" for generation in range(1, 5) for tier in ("uu", "nu", "ubers")]
OTHERS += ["gen5ou", "gen6ou", "gen7uu", "gen9uu"]


@pytest.mark.parametrize("battle_format", FORMATS)
def test_our_teams_are_sound_and_the_evaluation_ones_apart(simulator, battle_format):
    training = load_teams(simulator, battle_format)
    kept = load_teams(simulator, battle_format, purpose="evaluation")
    assert len(training) >= 12
    assert len(kept) >= 4
    assert not {team.packed for team in training} & {team.packed for team in kept}


def test_anybodys_teams(simulator, tmp_path, caplog):
    good = team_files("gen1ou", None, "training")[0].read_text()
    (tmp_path / "good.gen1ou_team").write_text(good)
    (tmp_path / "bad.gen1ou_team").write_text("Mew\n- Transform\n")
    with pytest.raises(InvalidTeam, match=r"bad.gen1ou_team: .*Mew"):
        load_teams(simulator, "gen1ou", tmp_path)
    assert [team.name for team in load_teams(simulator, "gen1ou", tmp_path, strict=False)] == ["good"]
    (tmp_path / "bad.gen1ou_team").write_text("Flabébé (Mew)\n- Transform\n", encoding="latin-1")
    with pytest.raises(InvalidTeam, match=r"bad.gen1ou_team: is no UTF-8 text \("):
        load_teams(simulator, "gen1ou", tmp_path)
    with pytest.raises(InvalidTeam, match=r"no \*.gen2ou_team file"):
        load_teams(simulator, "gen2ou", tmp_path)
    for makes_its_own in ("gen9randombattle", "gen9battlefactory", "gen1challengecup"):
        teams = load_teams(simulator, makes_its_own, tmp_path)
        assert [(team.name, team.packed) for team in teams] == [("random", None)]
        assert f"{makes_its_own}: makes its own teams: those of {tmp_path} are not for it" in caplog.text
    with pytest.raises(InvalidTeam, match=r"no \*.gen1uu_team file"):  # given ones are not made up for
        load_teams(simulator, "gen1uu", tmp_path)
    (tmp_path / "good.gen1ou_team").unlink()
    with pytest.raises(InvalidTeam, match=r"bad.gen1ou_team"):  # not one is good
        load_teams(simulator, "gen1ou", tmp_path, strict=False)
    (tmp_path / "gen1ou").mkdir()
    for name in "dbac":  # the format's own folder comes first, by name
        (tmp_path / "gen1ou" / f"{name}.gen1ou_team").write_text(good)
    assert [team.name for team in load_teams(simulator, "gen1ou", tmp_path)] == ["a", "b", "c", "d"]


def species_of(team):
    """A packed team's species, and the level of each."""
    fields = [one.split("|") for one in team.packed.split("]")]
    return {species or name for name, species, *_ in fields}, {field[10] or "100" for field in fields}


@pytest.mark.parametrize(
    "battle_format", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS if name not in QUICK)]
)
def test_where_nobody_wrote_teams_they_are_made_of_showdowns_sets(simulator, battle_format, caplog):
    training = load_teams(simulator, battle_format)
    kept = load_teams(simulator, battle_format, purpose="evaluation")
    assert (len(training), len(kept)) == (24, 8)
    assert f"{battle_format}: nobody wrote teams: 24 made of Showdown's random sets" in caplog.text
    line_ups = {frozenset(species_of(team)[0]) for team in (*training, *kept)}
    assert len(line_ups) == 32
    assert len({team.name for team in training}) == 24
    assert {len(line_up) for line_up in line_ups} == {3 if battle_format == "gen91v1" else 6}
    assert {level for team in training for level in species_of(team)[1]} == {"100"}
    for team in (training[0], kept[-1]):
        assert simulator.pack_team(battle_format, team.packed).lower() == team.packed.lower()
    assert load_teams(simulator, battle_format) == training


def test_they_are_of_the_formats_own_tier(simulator):
    names = {tier: [species_of(t)[0] for t in load_teams(simulator, f"gen3{tier}")] for tier in ("ubers", "uu", "nu")}
    seen = {tier: set().union(*teams) for tier, teams in names.items()}
    assert {"Kyogre", "Mewtwo"} <= seen["ubers"]
    assert not seen["ubers"] & seen["uu"]
    assert not seen["uu"] & seen["nu"]


def test_they_are_of_the_formats_own_level(simulator):
    (team,) = simulator.assemble_teams("gen9bssregi", 1, 1)
    assert species_of(Team("one", team))[1] == {"50"}


def test_where_none_can_be_made_the_reason_is_told(simulator):
    with pytest.raises(InvalidTeam, match=r"gen1lc: 0 teams could be made .*evol.*gen1lc_team file"):
        load_teams(simulator, "gen1lc")
    assert len(simulator.assemble_teams("gen1uu", 2, 2)) == 2
    with pytest.raises(InvalidTeam, match="gen1uu: 1 teams could be made"):
        simulator.assemble_teams("gen1uu", 1, 2)
