"""From a configuration to the parts of a run: its battles and its network. Nothing here trains."""

import json
import math
from dataclasses import fields

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from data.dataset import BattleDataset, DataConfig
from data.observation import space_named
from data.reward import REWARDS, reward_stamp
from data.schema import SCHEMA_VERSION
from data.space_stamps import space_stamps
from data.tokenizer import Tokenizer
from model.attention import choose_implementation
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from trainer.config import ModelChoice, RunConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.finetune import Start, check_formulas
from trainer.objective import derived_support
from trainer.world import computes_in_bf16

OTHER_MODEL = (
    "its model is not that of this run's configuration: keep model.* and objective.reward_scale as they were, or give "
    "another output"
)
# Of a model's configuration: what a run may choose anew where it goes on, no weight means anything else for it; and
# the digests, which `check_stamps` looks at.
_FREE = {
    "initializer_range", "dropout", "act_gamma", "act_beta", "max_turns", "heldout_share", "split_by", "licence",
    "space_digest", "reward_digest",
}  # fmt: skip


def network_config(choice: ModelChoice, data: DataConfig, tokenizer: Tokenizer, reward_scale: float) -> TurnwiseConfig:
    """The model's configuration: preset, what the run changes of it, and the data's sizes and stamps."""
    space = space_named(data.space)
    known = {f.name for f in fields(ModelChoice)} - {"preset", "attention", "gradient_checkpointing"}
    changed = {name: getattr(choice, name) for name in known if getattr(choice, name) is not None}
    low, high = derived_support(data.reward, reward_scale)
    for name, needed in (("value_min", low), ("value_max", high)):
        chosen = getattr(choice, name)
        # Past the result's own value a support may be cut: long stalls are rare. Below it, every end of a battle is.
        result = math.copysign(
            max(abs(REWARDS[data.reward].win), abs(REWARDS[data.reward].loss)) * reward_scale, needed
        )
        if chosen is not None and abs(chosen) < abs(result):
            raise ConfigError(
                f"model.{name}={chosen} lies inside a decided battle's return, {result:g} (reward {data.reward!r} × "
                f"objective.reward_scale {reward_scale:g}): leave it null to derive it ({needed:g})"
            )
    sizes = {"value_min": low, "value_max": high, **preset(choice.preset), **changed}
    return TurnwiseConfig(
        **sizes,
        observation_space=space.name,
        vocabulary_hash=tokenizer.hash,
        reward_kind=data.reward,
        reward_scale=reward_scale,
        schema_version=SCHEMA_VERSION,
        heldout_share=data.heldout_share,
        split_by=data.split_by,
        vocab_size=len(tokenizer),
        **space_stamps(space.name),
        **reward_stamp(data.reward),
        layout=space.layout,
        max_turns=data.max_turns,
    )


def build_network(
    config: RunConfig, tokenizer: Tokenizer, device: torch.device, start: Start | None = None
) -> TurnwiseForOfflineRL:
    """A fresh network, its weights a function of the seed; or that of the model to start from."""
    torch.manual_seed(config.seed)
    if start is None:
        sizes = network_config(config.model, config.data, tokenizer, config.objective.reward_scale)
        network = TurnwiseForOfflineRL(sizes).to(device)
    else:
        network = start.network().to(device)
    network.attention = choose_implementation(
        config.model.attention, device, fp32=not computes_in_bf16(config, device.type == "cuda")
    )
    if config.model.gradient_checkpointing:
        network.gradient_checkpointing_on()
    return network


def check_stamps(model_config: TurnwiseConfig, data: DataConfig, tokenizer: Tokenizer, source: str) -> None:
    """Raises ConfigError naming the stamp in which a saved model and the data at hand differ (law 14)."""
    pairs = {
        "observation_space": data.space,
        "vocabulary_hash": tokenizer.hash,
        "reward_kind": data.reward,
        "schema_version": SCHEMA_VERSION,
    }
    for name, here in pairs.items():
        saved = getattr(model_config, name)
        if saved != here:
            raise ConfigError(
                f"{source}: the model's {name} is {saved!r} and the data's {here!r}: "
                "use the model's own (data.space, data.reward, its vocabulary.json), or train a new model"
            )
    check_formulas(model_config, source)


def check_meaning(saved: TurnwiseConfig, here: TurnwiseConfig, source: str) -> None:
    """Raises CheckpointError naming a setting by which a checkpoint's weights would stand for something else in this
    run's network, their shapes alike or not: another discount, other value bins, another scale of the return."""

    def plain(config: TurnwiseConfig, name: str):
        return json.loads(json.dumps(getattr(config, name)))

    for name in (name for name in TurnwiseConfig.__annotations__ if name not in _FREE):
        before, now = plain(saved, name), plain(here, name)
        if before != now:
            raise CheckpointError(f"{source}: {name} is {before!r} there and {now!r} here: {OTHER_MODEL}")


def open_battles(
    config: DataConfig, tokenizer: Tokenizer, accelerator: Accelerator
) -> tuple[BattleDataset, BattleDataset]:
    """Both sides of the split, the same battles on every process. Collective.

    The first process fills the index's cache; the others map it, and don't look for what was recorded since. Raises
    ConfigError, on every process, where they opened other battles: each would draw from a plan of its own.
    """
    with accelerator.main_process_first():
        train = BattleDataset(config, tokenizer, "train", scan=accelerator.is_main_process)
    if train.fingerprint() != broadcast_object_list([train.fingerprint()])[0]:
        # Of a machine that keeps indexes of its own: they may be of another day.
        train = BattleDataset(config, tokenizer, "train")
    heldout = BattleDataset(config, tokenizer, "heldout", beside=train)
    if accelerator.num_processes == 1:
        return train, heldout
    found = gather_object([[train.fingerprint(), heldout.fingerprint()]])
    if any(one != found[0] for one in found):
        counts = ", ".join(str(sum(n for n, _ in one)) for one in found)
        raise ConfigError(
            f"the processes found other battles than each other ({counts}): files came or changed while they started; "
            "start again, or train on a token cache, which stays as it is"
        )
    return train, heldout


def check_observations(packs: list[dict], tokenizer: Tokenizer, max_unknown: float) -> dict[str, float]:
    """Shares of unknown and of padding words among the first packs' real turns.

    Raises ConfigError over `max_unknown`, or where every word of a real turn is padding or `<blank>`: such a run
    would learn from nothing (the prior attempt's first version did).
    """
    words = torch.cat([pack["words"][pack["valid"]] for pack in packs])
    blank = words == tokenizer.id("<blank>")
    padding, unknown = words == tokenizer.pad_id, words == tokenizer.unknown_id
    shares = {
        "data/unknown_words": unknown.float().mean().item(),
        "data/padding_words": padding.float().mean().item(),
        "data/blank_words": blank.float().mean().item(),
    }
    if shares["data/unknown_words"] > max_unknown:
        raise ConfigError(
            f"{100 * shares['data/unknown_words']:.1f}% of the words are unknown to the vocabulary (at most "
            f"{100 * max_unknown:.0f}%, data.max_unknown_share): build one with `python -m data.prepare vocabulary`"
        )
    if (blank | padding).all(1).any():
        raise ConfigError("observations hold nothing but padding or <blank>: the battle files' states were not read")
    return shares
