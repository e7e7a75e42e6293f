"""The model card of a saved agent, made from what its run left: configuration, held-out table, versions."""

import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from model.configuration_turnwise import TurnwiseConfig
from trainer.evaluate import as_text

USE = """```python
from transformers.dynamic_module_utils import get_class_from_dynamic_module

Agent = get_class_from_dynamic_module("agents.TurnwiseAgent", "{repo}")
agent = Agent.from_pretrained("{repo}")
decision = agent.decide(states)  # the battle's states so far, in the universal state schema
print(decision.words, decision.win_chance)
```"""


def model_card(folder: Path, repo: str, licence: str) -> ModelCard:
    """The card of the model folder `folder` for the repository `repo`, with valid Hub metadata.

    The held-out table is that of `evaluation.json` beside the folder; the run's settings those of `run_config.json`.
    Where they are absent the card says so.
    """
    config = TurnwiseConfig.from_pretrained(folder)
    evaluation = _json_beside(folder, "evaluation.json")
    settings = _json_beside(folder, "run_config.json")
    data = ModelCardData(
        license=licence,
        library_name="transformers",
        tags=["reinforcement-learning", "offline-rl", "pokemon-showdown", "turnwise"],
        model_name=repo.split("/")[-1],
        eval_results=_results(evaluation, repo),
    )
    table = f"```\n{as_text(evaluation)}\n```" if evaluation else "Not evaluated: no evaluation.json beside the model."
    run = f"```json\n{json.dumps(settings, indent=1)}\n```" if settings else "No run_config.json beside the model."
    text = "\n\n".join(
        [
            f"---\n{data.to_yaml()}\n---",
            f"# {repo}",
            "An agent that plays Pokémon Showdown singles battles, trained by offline reinforcement learning with "
            "Turnwise on recorded battles (observations, actions and rewards of Metamon, arXiv 2504.04395).",
            f"## Use\n\n{USE.format(repo=repo)}\n\nIt needs torch, transformers, numpy and msgspec. "
            "`AutoModel.from_pretrained(…, trust_remote_code=True)` gives the network alone.",
            f"## What it is\n\n- observation space `{config.observation_space}`, {config.n_words} words and "
            f"{config.n_numbers} numbers a turn; {config.n_actions} actions; window of {config.max_turns} turns\n"
            f"- trunk {config.num_layers} × {config.hidden_size}, turn encoder `{config.turn_encoder}`; one policy and "
            f"{config.critics} critics for each γ of {list(config.gammas)}; acts by γ = {config.act_gamma}\n"
            f"- reward `{config.reward_kind}`; {100 * config.heldout_share:g}% of the battles held out, "
            f"by {config.split_by}",
            f"## Held-out battles\n\n{table}",
            f"## Settings\n\n{run}",
            "## Data and limits\n\nIt knows the formats it was trained on, and imitates those who played the recorded "
            "battles. Of public replays: `jakegrigsby/metamon-parsed-replays` is CC-BY-NC-4.0, so a model "
            "trained on it is for non-commercial use, with attribution. Bots are contested on the public ladder: "
            "play on a local server.",
            "## Citation\n\nGrigsby et al., *Human-Level Competitive Pokémon via Scalable Offline Reinforcement "
            "Learning with Transformers*, arXiv 2504.04395.",
        ]
    )
    return ModelCard(text + "\n")


def _results(evaluation: dict | None, repo: str) -> list[EvalResult] | None:
    if not evaluation:
        return None
    everything = evaluation["policy"][0]
    return [
        EvalResult(
            task_type="reinforcement-learning",
            dataset_type="battles",
            dataset_name="held-out battles",
            metric_type=kind,
            metric_name=f"{name} at γ = {evaluation['gamma']}",
            metric_value=round(everything[key][0], 5),
        )
        for kind, name, key in (("accuracy", "top-1 accuracy", "top1"), ("nll", "negative log-likelihood", "nll"))
    ]


def _json_beside(folder: Path, name: str) -> dict | None:
    path = folder.parent / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
