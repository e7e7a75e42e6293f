"""The model card of a saved agent, made from what its run left; what is absent the card says is absent.

Read from the run's folder: about.json (settings, commit, machine, data), training_log.csv (time, cost, held-out
likelihood), evaluation.json (held-out table), play.json (win rates, by `battle.evaluate --json`).
"""

import csv
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors.torch import load_file

from model.configuration_turnwise import TurnwiseConfig
from model.fingerprint import fingerprint_of
from trainer.changes import PLACES
from trainer.errors import come_whole
from trainer.export import CURVE, WEIGHTS
from trainer.provenance import NON_COMMERCIAL
from trainer.scores import as_text
from trainer.training_log import read_json, whole_lines
from trainer.wording import ABOUT, duration, in_words

log = logging.getLogger(__name__)

USE = """```python
from transformers.dynamic_module_utils import get_class_from_dynamic_module
Agent = get_class_from_dynamic_module("agents.TurnwiseAgent", "{repo}")
agent = Agent.from_pretrained("{repo}")
decision = agent.decide(states, actions)  # the battle's states so far, and what was done in all but the last
print(decision.words, decision.win_chance)
```"""

SAME_TERMS = (
    "CC-BY-NC-4.0 asks for attribution and forbids commercial use; this model is given on under the same terms."
)
# Of a model that was packed up without its code.
USE_PACKED = """```python
from battle.agents import TurnwiseAgent  # of Turnwise's repository

agent = TurnwiseAgent.from_pretrained("{repo}")  # this folder, or its name on the Hub
decision = agent.decide(states, actions)  # the battle's states so far, and what was done in all but the last
print(decision.words, decision.win_chance)
```

`python -m trainer.hub push {repo} --to NAME/MODEL` puts the code back beside it: then it acts on its own."""


@dataclass
class RunFacts:
    """What a run's folder says of it. `final`: the model at hand is the one that the run left at its end; `step`: its
    step, of a checkpoint's; `over`: the run has ended; `others_play`: its play.json is not of that model."""

    about: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    play: dict[str, Any] | None = None
    final: bool = False
    step: int | None = None
    over: bool = False
    others_play: bool = False

    @classmethod
    def of(cls, run: Path | None, model: Path) -> "RunFacts":
        """Read a run's folder; None: a model without one."""
        if run is None:
            return cls()
        final = model.resolve() == (run / "model").resolve()
        logged = run / "training_log.csv"
        rows = list(csv.DictReader(whole_lines(logged))) if logged.exists() else []
        step = (read_json(model.parent / "run.json") or {}).get("step")
        if step is not None:  # what was logged after it tells of other weights
            rows = [row for row in rows if int(row["step"]) <= step]
        others = False
        # The two tables are of the run's final model alone, and of play the rows of the first player named: others' may
        # stand beside them (a second agent, or everybody against everybody).
        tables = [read_json(run / name) if final else None for name in ("evaluation.json", "play.json")]
        if tables[1]:
            first = next(iter(tables[1]["players"]))
            rows_of_play = tables[1].get("over_formats", []) + tables[1]["results"]  # the former absent in older files
            tables[1]["results"] = [row for row in rows_of_play if row["player"] == first]
            known = tables[1]["players"][first].get("weights")  # absent in older files
            with come_whole(model):
                others = known is not None and known != fingerprint_of(load_file(model / WEIGHTS))
            if others:
                tables[1] = None
                log.warning(
                    "%s: its first player, %s, is not the run's agent, whose card has no win rates therefore: name the "
                    "run first, as `battle.evaluate --agent RUN`", run / "play.json", first,
                )  # fmt: skip
        return cls(read_json(run / ABOUT) or {}, rows, *tables, final, step, (run / "model").exists(), others)

    @property
    def origins(self) -> list[dict[str, str]]:
        """The downloads that the training data came from: {"repo", "revision", "licence"} each."""
        return self.about.get("data", {}).get("origins", [])

    def last(self, column: str) -> float | None:
        """The latest value of a column of the log, or None where it was never written."""
        return next((float(row[column]) for row in reversed(self.rows) if row.get(column)), None)


def run_of(model: Path) -> Path | None:
    """The run's folder that a model folder lies in: OUTPUT of OUTPUT/model and OUTPUT/step_…/model."""
    return next((p for p in (model.parent, model.parent.parent) if (p / "run_config.json").exists()), None)


def model_card(folder: Path, repo: str, licence: str | None, facts: RunFacts, use: str = USE) -> ModelCard:
    """The card of the model folder `folder` for the repository `repo`, with valid Hub metadata.

    licence: as the Hub names it; None: what the data asks for. use: how to, with `{repo}` to be filled in.
    """
    config = TurnwiseConfig.from_pretrained(folder)
    licence = licence or config.licence or "mit"  # the code's own
    data = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="reinforcement-learning",
        datasets=sorted({o["repo"] for o in facts.origins}) or None,
        tags=["reinforcement-learning", "offline-rl", "pokemon-showdown", "turnwise"],
        model_name=_short(repo),
        eval_results=_results(facts) or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repo}",
        "An agent that plays Pokémon Showdown singles battles, trained by offline reinforcement learning with "
        "Turnwise on recorded battles (observations, actions and rewards of Metamon, arXiv 2504.04395).",
        f"## Use\n\n{use.format(repo=repo)}\n\nIt needs torch, transformers, safetensors, numpy and msgspec. "
        f'`AutoModel.from_pretrained("{repo}", trust_remote_code=True)` gives the network alone.',
        f"## What it is\n\n{_what_it_is(config)}",
        f"## Data\n\n{_data(facts, licence)}",
        f"## Held-out battles\n\n{_heldout(facts)}",
        f"## Battles played\n\n{_win_rates(facts)}",
        f"## Training\n\n{_training(facts)}",
        "## Limits\n\nIt knows the formats that it was trained on, and the habits of those who played the recorded "
        "battles. It sees what one player sees, as the recorder wrote it down; its win chance is calibrated on "
        "training battles. Bots are contested on the public ladder: play on a local server, or ask first.",
        "## Citation\n\nGrigsby et al., *Human-Level Competitive Pokémon via Scalable Offline Reinforcement "
        "Learning with Transformers*, arXiv 2504.04395.",
    ]
    return ModelCard("\n\n".join(parts) + "\n")


def renamed_card(text: str, repo: str, use: str = USE) -> ModelCard:
    """A card that `model_card` wrote, for another name or with the other `use`; anybody else's card as it is."""
    card = ModelCard(text)
    title = re.search("^# (.+)$", card.text, re.M)
    old = title[1] if title else ""
    known = next((form for form in (USE, USE_PACKED) if form.format(repo=old) in text), None)
    if known is None:
        return card
    text = text.replace(known.format(repo=old), use.format(repo=repo)).replace(f"# {old}\n", f"# {repo}\n", 1)
    card = ModelCard(text.replace(f'from_pretrained("{old}"', f'from_pretrained("{repo}"'))
    card.data.model_name = _short(repo)
    return card


def _short(repo: str) -> str:
    return repo.split("/")[-1]


def _what_it_is(config: TurnwiseConfig) -> str:
    return (
        f"- observation space `{config.observation_space}`: {config.n_words} words and {config.n_numbers} numbers a "
        f"turn; {config.n_actions} actions; a window of {config.max_turns} turns\n"
        f"- trunk {config.num_layers} × {config.hidden_size}, turn encoder `{config.turn_encoder}`; one policy and "
        f"{config.critics} critics for each γ of {list(config.gammas)}; acts by γ = {config.act_gamma}, and leans on "
        f"its critics by β = {config.act_beta}\n"
        f"- reward `{config.reward_kind}`; vocabulary of {config.vocab_size:,} words, `{config.vocabulary_hash[:12]}`"
    )


def _data(facts: RunFacts, licence: str) -> str:
    data = facts.about.get("data")
    if not data:
        return "Not known: no about.json of a run beside the model."
    formats = ", ".join(f"{name} {count:,}" for name, count in data["formats"].items())
    config = facts.about["config"]["data"]
    lines = [
        f"{data['battles']:,} views of battles ({formats}); held out from training were "
        f"{100 * config['heldout_share']:g}% of all, by {config['split_by']}. {data['rejected']:,} files rejected; "
        f"{100 * data['unknown_words']:.2f}% of the words unknown, {100 * data['unrecorded_actions']:.1f}% of the "
        "actions never revealed."
    ]
    if config.get("filter"):
        lines.append(f"Which battles were taken: `{config['filter']}`.")
    for source in config.get("sources") or ():
        if source.get("filter"):
            lines.append(f"Of those in `{_unplaced(source['path'])}`: `{source['filter']}`.")
    if config.get("clone"):
        lines.append(f"Whose actions the policy clones: `{config['clone']}`. The others teach the critics alone.")
    if start := facts.about["config"]["model"].get("init_from"):
        lines.append(f"It began with `{_unplaced(start)}`.")
    lines += [f"- `{o['repo']}` at revision `{o['revision']}`, licence {o['licence']}" for o in facts.origins]
    if not facts.origins:
        lines.append(
            "Where the files came from was not noted (no downloads.json in their folder). The public replays, "
            "`jakegrigsby/metamon-parsed-replays`, are CC-BY-NC-4.0: a model trained on them is for non-commercial "
            "use, with attribution."
        )
    if licence == NON_COMMERCIAL:
        lines.append(SAME_TERMS)
    return "\n\n".join(lines)


def _heldout(facts: RunFacts) -> str:
    if facts.evaluation:
        step = facts.evaluation.get("step")  # absent in older runs
        return f"```\n{as_text(facts.evaluation)}\n```" + (f"\n\nOf the weights of step {step:,}." if step else "")
    nll, top1 = facts.last("heldout/nll"), facts.last("heldout/accuracy")
    if nll is None:
        return "Not evaluated yet."
    return f"So far: negative log-likelihood {nll:.4f}, top-1 {100 * top1:.1f}%, over decisions with a choice."


def _win_rates(facts: RunFacts) -> str:
    if facts.others_play:
        return "Not told: the run's play.json has another player's results (its weights are not this model's)."
    if not facts.play:
        return "Not measured: no play.json in the run (`python -m battle.evaluate --agent RUN --json RUN/play.json`)."
    lines = ["| format | opponent | battles | win rate | 95% interval |", "| --- | --- | --- | --- | --- |"]
    for row in facts.play["results"]:
        if row["win_rate"] is not None:
            low, high = row["interval95"]
            lines.append(
                f"| {row['format']} | {row['opponent']} | {row['battles']} | {row['win_rate']:.1%} | "
                f"{low:.1%}–{high:.1%} |"
            )
    return "\n".join(lines)


def _training(facts: RunFacts) -> str:
    if not facts.about:
        return "Not known: no about.json of a run beside the model."
    hours, dollars, step = (facts.last(name) for name in ("time/hours", "cost/dollars", "step"))
    said = [f"- on {in_words(facts.about['system'])}"]
    if hours is not None:
        state = "" if facts.over else ", and it goes on"
        said.append(f"- {facts.step or step:,.0f} steps in {duration(hours * 3600)}{state}")
    said.append(f"- cost: ${dollars:,.2f}" if dollars is not None else "- cost: not counted (`cost.dollars_per_hour`)")
    said.append(f"- Turnwise at commit `{facts.about['commit'] or 'unknown'}`, " + _versions(facts.about["versions"]))
    for change in facts.about.get("changes", []):  # absent in older runs
        told = [f"`{key}` {text}" for key, text in change["settings"].items() if not key.startswith(PLACES)]
        if told:
            said.append(f"- from step {change['step']:,} on by other settings: {'; '.join(told)}")
    curve = f"![Training curve]({CURVE})\n\n" if facts.rows else ""
    settings = json.dumps(_unplaced(facts.about["config"]), indent=1, ensure_ascii=False)
    return (
        "\n".join(said) + f"\n\n{curve}<details><summary>Settings</summary>\n\n```json\n{settings}\n```\n\n</details>"
    )


def _unplaced(value: Any) -> Any:
    """Settings without the folders of the machine that they were given on, which are nobody's business on the Hub."""
    if isinstance(value, dict):
        return {key: _unplaced(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_unplaced(entry) for entry in value]
    return f"…/{Path(value).name}" if isinstance(value, str) and value.startswith(("/", "~")) else value


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in versions.items())


def _results(facts: RunFacts) -> list[EvalResult]:
    """The figures as the Hub's `model-index` has them."""
    results = []
    if facts.evaluation:
        everything = facts.evaluation["policy"][0]
        at = f"at γ = {facts.evaluation['gamma']}"
        for kind, name, key in (("accuracy", "top-1 accuracy", "top1"), ("nll", "negative log-likelihood", "nll")):
            value = round(everything[key][0], 5)
            results.append(_result("battles", "held-out battles", kind, f"{name} {at}", value))
    for row in (facts.play or {}).get("results", []):
        if row["win_rate"] is not None:
            where = f"{'all formats' if row['format'] == 'all' else row['format']} against {row['opponent']}"
            kind = f"{row['format']}-{row['opponent']}"
            results.append(_result(kind, where, "win_rate", f"win rate, {where}", round(row["win_rate"], 5)))
    return results


def _result(dataset: str, dataset_name: str, kind: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="reinforcement-learning", dataset_type=dataset, dataset_name=dataset_name,
        metric_type=kind, metric_name=name, metric_value=value,
    )  # fmt: skip
