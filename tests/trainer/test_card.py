"""A model's card: its results, its data, what follows from their licence; nothing of the machine or another player."""

import json
import shutil

from huggingface_hub import ModelCard

from battle.agents import TurnwiseAgent
from battle.journal import weights_of
from tests.trainer.conftest import rows_of
from trainer import upload
from trainer.card import RunFacts, model_card, renamed_card, run_of
from trainer.wording import duration


def test_the_card_names_its_results_its_data_and_what_follows_from_their_licence(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    about = json.loads((run / "about.json").read_text())
    origin = {"repo": "jakegrigsby/metamon-parsed-replays", "revision": "v4", "licence": "cc-by-nc-4.0"}
    about["data"]["origins"] = [origin]
    about["config"]["data"] |= {"filter": "rating > 1000", "clone": "won"}
    about["config"]["model"]["init_from"] = "me/before"
    about["config"]["output"] = "/home/me/runs/secret run"
    about["config"]["data"]["sources"] = [
        {"path": "/data/me/battles", "weight": 2, "filter": ""},
        {"path": "/data/me/own", "weight": 1, "filter": "won and turns > 9"},
    ]
    (run / "about.json").write_text(json.dumps(about))
    played = {"format": "gen1ou", "battles": 200, "win_rate": 0.615, "interval95": [0.546, 0.68]}
    none = {"format": "gen1ou", "battles": 0, "win_rate": None, "interval95": [0.0, 1.0]}
    results = [
        {"player": "run", "opponent": "boss", **played}, {"player": "run", "opponent": "void", **none},
        {"player": "boss", "opponent": "random", **played},
    ]  # fmt: skip
    over = [row | {"format": "all", "win_rate": 0.5} for row in results]
    players = {name: {} for name in ("run", "boss", "void", "random")}  # an older file, without their weights
    (run / "play.json").write_text(json.dumps({"results": results, "over_formats": over, "players": players}))
    folder = run / "model"
    sizes = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(sizes | {"licence": "cc-by-nc-4.0"}))
    card = ModelCard(str(model_card(folder, "me/agent", None, RunFacts.of(run_of(folder), folder))))
    granted = model_card(folder, "me/agent", "cc0-1.0", RunFacts.of(run_of(folder), folder))
    assert granted.data.license == "cc0-1.0"
    # The card that a packed or pulled one has is kept, and its licence's terms go with the licence.
    (folder / "README.md").write_text(str(card))
    kept, given = (upload.documents(folder, "me/agent", asked, None)["README.md"].decode() for asked in (None, "mit"))
    assert "license: cc-by-nc-4.0" in kept
    assert "forbids commercial use" in kept
    assert "license: mit" in given
    assert "forbids commercial use" not in given
    (folder / "README.md").unlink()
    assert "taken: `rating > 1000`" in card.text
    assert "Of those in `…/own`: `won and turns > 9`." in card.text
    assert "Of those in `…/battles`" not in card.text
    assert "It began with `me/before`." in card.text
    assert "/me/" not in card.text.replace("/me/before", "")  # whose machine it was is nobody's business
    assert '"output": "…/secret run"' in card.text
    assert '"path": "…/battles"' in card.text
    assert "clones: `won`. The others teach the critics alone" in card.text
    assert (card.data.license, card.data.datasets) == ("cc-by-nc-4.0", [origin["repo"]])
    figures = {result.metric_name: result.metric_value for result in card.data.eval_results}
    table = json.loads((run / "evaluation.json").read_text())["policy"][0]
    assert figures == {
        "top-1 accuracy at γ = 0.999": round(table["top1"][0], 5),
        "negative log-likelihood at γ = 0.999": round(table["nll"][0], 5),
        "win rate, all formats against boss": 0.5,
        "win rate, all formats against void": 0.5,
        "win rate, gen1ou against boss": 0.615,
    }
    for text in (
        "revision `v4`", "forbids commercial use", "| all | boss | 200 | 50.0%",
        "| gen1ou | boss | 200 | 61.5% | 54.6%–68.0% |", "120 steps in",
        "format: gen1ou", "training_curve.png", '"preset": "tiny"', "arXiv 2504.04395", about["system"]["processor"],
    ):  # fmt: skip
        assert text in card.text, text
    checkpoint = run / "step_00000060" / "model"
    unfinished = str(model_card(checkpoint, "me/agent", None, RunFacts.of(run_of(checkpoint), checkpoint)))
    assert "So far: negative log-likelihood" in unfinished
    then = next(row for row in rows_of(run) if row["step"] == "60")
    assert f"So far: negative log-likelihood {float(then['heldout/nll']):.4f}, " in unfinished
    assert "60 steps in" in unfinished
    assert "format: gen1ou" not in unfinished
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    bare = ModelCard(str(model_card(alone, "me/agent", None, RunFacts.of(run_of(alone), alone))))
    assert (bare.data.license, bare.data.eval_results) == ("cc-by-nc-4.0", None)
    assert "Not known: no about.json" in bare.text


def test_win_rates_of_another_player_are_not_the_agents(trained, tmp_path, caplog):
    """The first player of play.json may be a baseline, or another model."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    row = {"format": "gen1ou", "player": "a", "opponent": "b", "battles": 9, "win_rate": 0.5, "interval95": [0.2, 0.8]}
    agent, told = TurnwiseAgent.from_pretrained(run), []
    for weights in (weights_of(agent), "", "0123"):
        players = {"a": {"weights": weights}, "b": {"weights": ""}}
        (run / "play.json").write_text(json.dumps({"results": [row], "over_formats": [], "players": players}))
        card = model_card(run / "model", "me/agent", None, RunFacts.of(run, run / "model"))
        told.append(("| gen1ou | b | 9 | 50.0%" in card.text, "another player's results" in card.text))
        assert len(card.data.eval_results) == (3 if weights == weights_of(agent) else 2)
    assert told == [(True, False), (False, True), (False, True)]
    assert f"{run / 'play.json'}: its first player, a, is not the run's agent" in caplog.text


def test_the_card_tells_shares_times_and_costs_as_they_are(trained):
    folder = trained / "model"
    facts = RunFacts.of(trained, folder)
    facts.about["data"] |= {"unknown_words": 0.25, "unrecorded_actions": 0.5, "origins": []}
    facts.about["config"]["data"] |= {"heldout_share": 0.04, "path": "~/mine/battles"}
    facts.about["commit"] = None
    facts.rows[-1] |= {"time/hours": "2.0", "cost/dollars": "0.0"}
    card = model_card(folder, "me/agent", "cc0-1.0", facts)
    assert (card.data.license, card.data.model_name, card.data.datasets) == ("cc0-1.0", "agent", None)
    for text in (
        "were 4% of all, by battle", "25.00% of the words unknown, 50.0% of the actions",
        "Where the files came from was", f"120 steps in {duration(7200)}", "cost: $0.00", "commit `unknown`",
        '"…/battles"',
    ):  # fmt: skip
        assert text in card.text, text
    for text in ("forbids commercial use", "and it goes on", "~/mine"):
        assert text not in card.text, text
    facts.about["data"]["origins"] = [{"repo": "some/data", "revision": "v4", "licence": "cc-by-4.0"}]
    facts.evaluation, facts.final, facts.over, facts.step = None, False, False, 110
    facts.rows = [*facts.rows, {"heldout/nll": "1.5", "heldout/accuracy": "0.25"}]
    card = model_card(folder, "me/agent", None, facts)
    for text in ("`some/data` at revision `v4`, licence cc-by-4.0", "likelihood 1.5000, top-1 25.0%",
                 f"- 110 steps in {duration(7200)}, and it goes on"):  # fmt: skip
        assert text in card.text, text
    assert "Where the files came from" not in card.text
    other = renamed_card(str(card), "me/other")
    assert other.text == card.text.replace("me/agent", "me/other")
    assert other.data.model_name == "other"
    assert "me/agent" not in str(other)
    foreign = str(card).replace("agent = Agent.from", "mine = Agent.from")
    assert str(renamed_card(foreign, "me/other")) == foreign  # rewritten by hand
