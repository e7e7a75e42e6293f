"""The bundled model to start from: small, of this code's vocabulary and schema, with a card, and a good player."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from battle.evaluate import Arena, Counted, facts_of
from battle.play import play
from battle.players import make_player, parse_player
from battle.teams import load_teams

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "battle" / "starter"


def test_it_is_under_ten_megabytes_and_says_what_it_is():
    assert sum(path.stat().st_size for path in STARTER.iterdir()) < 10e6
    assert json.loads((STARTER / "calibration.json").read_text())["gammas"]
    card = ModelCard.load(STARTER / "README.md")
    assert card.data.library_name == "transformers"
    won = {result.dataset_type for result in card.data.eval_results if result.metric_type == "win_rate"}
    assert len(won) == 64  # 32 formats, two opponents


@pytest.mark.parametrize(
    ("battle_format", "opponent", "least"), [("gen2ou", "simple_heuristics", 0.5), ("gen9ou", "random", 0.8)]
)
def test_it_wins(battle_format, opponent, least, simulator):
    """With teams that were never recorded; by its record it wins far more often than is asked for here."""
    arena = Arena([Counted(make_player(parse_player(text))) for text in (f"starter={STARTER}", opponent)])
    teams = load_teams(simulator, battle_format, purpose="evaluation")
    for outcome in play(simulator, arena.matches(battle_format, [(0, 1)], teams, 24, 3, "first")):
        arena.count(outcome.match.id, **facts_of(outcome))
    (tally,) = arena.tallies.values()
    assert tally.battles == 24
    assert tally.score / 24 >= least
