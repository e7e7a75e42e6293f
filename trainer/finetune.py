"""Fine-tuning: `model.init_from` names the model that a run starts from. Its sizes and its vocabulary become the run's.

A vocabulary only grows: the run's own words that the model lacks go behind the model's, with fresh embedding rows.
"""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file

from data.data_config import DataConfig
from data.reward import reward_stamp
from data.space_stamps import space_stamps
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL
from trainer.checkpoint import find_model
from trainer.config import ModelChoice, RunConfig
from trainer.errors import CheckpointError, ConfigError, card_reads, come_whole
from trainer.export import CARD, VOCABULARY

log = logging.getLogger(__name__)
# Of `ModelChoice`: what a run may choose although the weights come from elsewhere.
_FREE = {"preset", "init_from", "attention", "dropout", "act_beta", "act_gamma", "gradient_checkpointing"}
_WORD_ROWS = "model.turn_encoder.words.weight"


@dataclass
class Start:
    """A model to start from.

    folder: where its files are. saved: its configuration. config: the run's, with the model's sizes in it and
    `data.vocabulary` naming `vocabulary`, which holds the model's words, then the run's new ones.
    """

    folder: Path
    saved: TurnwiseConfig
    config: RunConfig
    tokenizer: Tokenizer

    def licence(self) -> str | None:
        """What its battles asked of it, or else what its card grants; None where neither is said."""
        card = self.folder / CARD
        if self.saved.licence or not card.exists():
            return self.saved.licence
        with card_reads(card):
            return (metadata_load(card) or {}).get("license")

    def network(self) -> TurnwiseForOfflineRL:
        """The network with the model's weights, on CPU in fp32; rows of new words are drawn by torch's generator.
        Raises CheckpointError where the model's files did not come whole."""
        data, model = self.config.data, self.config.model
        changed = {
            "dropout": model.dropout,
            "act_gamma": model.act_gamma,
            "act_beta": model.act_beta,
            "max_turns": data.max_turns,
            "heldout_share": never_seen(self.saved, data),
            "split_by": data.split_by,
            "space_digest": space_stamps(data.space)["space_digest"],
            **reward_stamp(data.reward),
            "vocab_size": len(self.tokenizer),
            "vocabulary_hash": self.tokenizer.hash,
        }
        config = TurnwiseConfig.from_pretrained(self.folder)
        for name, value in changed.items():
            setattr(config, name, value)
        network = TurnwiseForOfflineRL(config)
        with come_whole(self.folder):
            weights = load_file(self.folder / "model.safetensors")
            if _WORD_ROWS in weights:
                known = weights[_WORD_ROWS]
                with torch.no_grad():
                    rows = network.get_parameter(_WORD_ROWS).detach().clone()
                    rows[: len(known)] = known
                weights[_WORD_ROWS] = rows
            network.load_state_dict(weights)
        return network


def starting_model(config: RunConfig, resumed: Path | None = None) -> Start | None:
    """The model that `model.init_from` names, or None where the run starts from nothing. resumed: the checkpoint that
    the run goes on from, if any, which stands for that model then: it may be gone, or be another one by now.

    Writes the joined vocabulary to OUTPUT/vocabulary.json. Raises ConfigError where there is no such model, or where
    it was trained on another observation space, reward or scale of it, or another size is asked for.
    """
    name = config.model.init_from
    if name is None:
        return None
    try:
        folder = find_model(name) if resumed is None else resumed / "model"
        with come_whole(folder):
            saved = TurnwiseConfig.from_pretrained(folder)
    except CheckpointError as error:
        raise ConfigError(f"model.init_from: {error}") from error
    _refuse_other_data(saved, config, name)
    if resumed is None:
        say_what_it_has_seen(saved, config.data, f"model.init_from={name}")
    tokenizer = joined(Tokenizer.load(folder / VOCABULARY), Tokenizer.load(config.data.vocabulary))
    if len(tokenizer) > saved.vocab_size:
        log.info("%s: %d new words join its %d", name, len(tokenizer) - saved.vocab_size, saved.vocab_size)
    if saved.act_beta != config.model.act_beta:
        log.info(
            "%s: its β is %g and this run's agent's %g, of model.act_beta", name, saved.act_beta, config.model.act_beta
        )
    path = Path(config.output) / VOCABULARY
    tokenizer.save(path)
    adapted = dataclasses.replace(
        config,
        model=_sizes_of(saved, config.model, name),
        data=dataclasses.replace(config.data, vocabulary=str(path)),
    )
    return Start(folder, saved, adapted, tokenizer)


def joined(saved: Tokenizer, run: Tokenizer) -> Tokenizer:
    """The saved model's words with their ids, then the run's words that it lacks, in the run's order."""
    first = len(saved.words_of([saved.pad_id, saved.unknown_id]))
    return Tokenizer([*saved.words[first:], *(word for word in run.words[first:] if word not in saved)])


def say_what_it_has_seen(saved: TurnwiseConfig, data: DataConfig, name: str) -> None:
    """A warning where battles that this run holds out may have taught the model that it goes on from. A smaller share
    by the same rule is part of the larger one."""
    if data.split_by != saved.split_by or data.heldout_share > saved.heldout_share:
        log.warning(
            "%s: it held out %g of the battles by %s, and this run holds out %g by %s: it may have "
            "seen some of them, and held-out figures be too good. data.heldout_share=%g data.split_by=%s has none such",
            name, saved.heldout_share, saved.split_by, data.heldout_share, data.split_by, saved.heldout_share,
            saved.split_by,
        )  # fmt: skip


def never_seen(saved: TurnwiseConfig, data: DataConfig) -> float:
    """The share of battles that a model has never seen once this run goes on from `saved`: the smaller one of both,
    where they are by one rule. By another rule none is known, and the run's stands."""
    return min(saved.heldout_share, data.heldout_share) if data.split_by == saved.split_by else data.heldout_share


def check_formulas(saved: TurnwiseConfig, source: str) -> None:
    """Raises ConfigError where this checkout makes other words or numbers of a state, or other rewards, than the saved
    model learned from. Of a model older than the digests the sizes of its space alone are known."""
    space, reward = saved.observation_space, saved.reward_kind
    of_space, of_reward = space_stamps(space), reward_stamp(reward)
    for stamp, here in (of_space | of_reward).items():
        own = getattr(saved, stamp)
        if own not in ("", here):
            edited = f"observation space {space!r}" if stamp in of_space else f"reward {reward!r}"
            raise ConfigError(
                f"{source}: the model's {stamp} is {own!r} and {here!r} in this checkout: {edited} was edited since "
                "(data/): take that back, or train a new model"
            )


def _refuse_other_data(saved: TurnwiseConfig, config: RunConfig, name: str) -> None:
    here = {
        "observation_space": ("data.space", config.data.space, "each of its inputs stands for one slot of that space"),
        "reward_kind": ("data.reward", config.data.reward, "its critics predict returns of that reward"),
        "reward_scale": (
            "objective.reward_scale", config.objective.reward_scale, "its critics predict returns at that scale"
        ),
    }  # fmt: skip
    for stamp, (key, asked, reason) in here.items():
        own = getattr(saved, stamp)
        if own != asked:
            raise ConfigError(
                f"model.init_from={name!r}: the model's {stamp} is {own!r} and the run's {key} is {asked!r}: {reason}. "
                f"Set {key}={own}, or train a new model"
            )
    check_formulas(saved, f"model.init_from={name!r}")


def _sizes_of(saved: TurnwiseConfig, asked: ModelChoice, name: str) -> ModelChoice:
    """The choice with the saved model's sizes. What the file asks for beyond a default must be the model's own."""
    default, sizes = ModelChoice(), {}
    for field in dataclasses.fields(ModelChoice):
        if field.name in _FREE:
            continue
        own, wanted = getattr(saved, field.name), getattr(asked, field.name)
        own = list(own) if isinstance(own, tuple) else own
        if wanted not in (own, getattr(default, field.name)):
            raise ConfigError(
                f"model.init_from={name!r}: the model's {field.name} is {own!r} and model.{field.name}={wanted!r} is "
                "asked for: leave it out, a fine-tuned model keeps its sizes"
            )
        sizes[field.name] = own
    if asked.act_gamma not in sizes["gammas"]:
        raise ConfigError(
            f"model.init_from={name!r}: model.act_gamma={asked.act_gamma} is none of the model's {sizes['gammas']}"
        )
    return dataclasses.replace(asked, **sizes)
