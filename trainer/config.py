"""The run's configuration: the dataclasses of all parts, composed; defaults → YAML file → `a.b=c` on the command line.

An unknown key, a wrong type or a syntax error is refused with the place and the nearest known name. Nothing is "auto"
in a saved configuration except what depends on the machine (attention, precision, compile), and the run prints those.
"""

import dataclasses
import difflib
import json
import math
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import yaml

from data.dataset import DataConfig
from data.sampler import BatchConfig
from trainer.errors import ConfigError
from trainer.guard import GuardConfig
from trainer.limits import not_negative, positive, refuse_unless
from trainer.objective import ObjectiveConfig
from trainer.optim import OptimConfig

# What msgspec calls the kinds of a value, as a person writes them in YAML.
_KINDS = {
    "array": "a list, as [a, b]", "object": "keys, as {a: b}", "str": "text, a number in quotes",
    "bool": "true or false", "int": "a whole number", "float": "a number",
}  # fmt: skip


class _EachKeyOnce(yaml.SafeLoader):
    """`safe_load` that refuses what YAML itself forbids and PyYAML lets pass: of a section that stands twice in a file
    the last alone would count, and the settings of the others be lost without a word."""

    def compose_mapping_node(self, anchor):
        node, known = super().compose_mapping_node(anchor), set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in known:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            known.add(key.value)
        return node


@dataclass
class ModelChoice:
    """The network: a preset, and what of it to change. Sizes left at None are the preset's."""

    preset: str = "base"
    init_from: str | None = None  # a run, a checkpoint, a saved model or a name on the Hub: fine-tune it, in its sizes
    turn_encoder: str = "blocks"  # blocks | transformer (the paper's)
    attention: str = "auto"  # eager | sdpa | flash_attention_2 | varlen_attn | flex_attention | a kernel of the Hub
    dropout: float = 0.0
    gammas: list[float] = field(default_factory=lambda: [0.9, 0.99, 0.999, 0.9999])
    act_gamma: float = 0.999
    act_beta: float = 0.0  # at play the policy leans on its critics: π·exp(β·Q), Q the unscaled return at act_gamma
    critics: int = 4
    value_head: str = "two_hot"  # two_hot | scalar (PopArt)
    value_bins: int | None = None
    value_spacing: str = "linear"  # linear | symlog
    value_min: float | None = None  # None: from the reward's kind and scale
    value_max: float | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    mlp_size: int | None = None
    head_width: int | None = None
    word_width: int | None = None
    entity_width: int | None = None
    entity_hidden: int | None = None
    matchup_width: int | None = None  # 0: entities do not meet before the trunk
    encoder_width: int | None = None  # of the transformer encoder, and so the four below
    encoder_layers: int | None = None
    encoder_heads: int | None = None
    encoder_numeric_tokens: int | None = None
    encoder_scratch_tokens: int | None = None
    use_previous_action: bool = True
    use_previous_reward: bool = True
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Raises ValueError naming the key."""
        sizes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type in (int, int | None)}
        matchup = sizes.pop("matchup_width")
        rules = [
            *((name, size is None or size >= 1, "1 or more") for name, size in sizes.items()),
            ("matchup_width", matchup is None or matchup >= 0, "0 (entities do not meet) or more"),
            ("value_bins", self.value_bins is None or self.value_bins >= 2, "2 or more"),
            ("dropout", 0 <= self.dropout < 1, "a share from 0 to below 1"),
            ("gammas", bool(self.gammas) and all(0 <= g < 1 for g in self.gammas), "discounts from 0 to below 1"),
            ("gammas", len(set(self.gammas)) == len(self.gammas), "each discount once"),
            # A model to start from brings discounts of its own.
            ("act_beta", not_negative(self.act_beta), "0 or more"),
            ("act_gamma", self.init_from is not None or self.act_gamma in self.gammas, "one of model.gammas"),
        ]
        refuse_unless("model.", self, rules)


@dataclass
class EvalConfig:
    every: int = 500  # optimizer steps between held-out evaluations; 0: only at the end
    battles: int | None = 1000  # held-out battles read at each; None: all
    # Held-out battles that the agent is judged on at the end, where one process works and other GPUs wait; None: all.
    final_battles: int | None = 10_000
    # The checkpoint that the agent is taken from: the last, or the one of the best held-out likelihood, which suits
    # imitation: a filter that turns from what players did makes that worse on purpose.
    choose: str = "last"  # last | likelihood
    calibration_battles: int = 1000  # training battles that the value calibration is fitted on

    def check(self) -> None:
        """Raises ValueError naming the key."""
        rules = [
            ("every", self.every >= 0, "0 (only at the end) or more"),
            ("battles", self.battles is None or self.battles >= 1, "1 or more, or null for all"),
            ("final_battles", self.final_battles is None or self.final_battles >= 1, "1 or more, or null for all"),
            ("choose", self.choose in ("last", "likelihood"), "last or likelihood"),
            ("calibration_battles", self.calibration_battles >= 1, "1 or more"),
        ]
        refuse_unless("eval.", self, rules)


@dataclass
class CheckpointConfig:
    every: int = 2000  # optimizer steps; one is always written at the end
    keep: int = 3  # newest ones kept, beside the best; 0: all
    background: bool = True  # write while training goes on, from a copy in the main memory

    def check(self) -> None:
        """Raises ValueError naming the key."""
        rules = [("every", self.every >= 1, "1 or more"), ("keep", self.keep >= 0, "1 or more, or 0 for all")]
        refuse_unless("checkpoint.", self, rules)


@dataclass
class LogConfig:
    every: int = 10  # optimizer steps between rows of training_log.csv
    wandb: bool = False
    tensorboard: bool = False
    project: str = "turnwise"
    name: str | None = None  # of the run at the trackers; null: OUTPUT's last part
    progress: bool = True
    report: bool = True  # draw OUTPUT/report.html at the run's end
    profile: int = 0  # optimizer steps to profile (0: none); the trace goes to OUTPUT/profile

    def check(self) -> None:
        """Raises ValueError naming the key."""
        rules = [("every", self.every >= 1, "1 or more"), ("profile", self.profile >= 0, "0 or more")]
        refuse_unless("log.", self, rules)


@dataclass
class HubConfig:
    """Where the agent is pushed to: at the end of the run, and with `every` during it; a failed push ends no run."""

    push: bool = False
    to: str | None = None  # NAME/MODEL
    every: int = 0  # optimizer steps between pushes, each at the next checkpoint; 0: only at the end
    private: bool = True
    licence: str | None = None  # as the Hub names it; null: cc-by-nc-4.0 where the data asks for it, else mit

    def check(self) -> None:
        """Raises ValueError naming the key."""
        refuse_unless("hub.", self, [("every", self.every >= 0, "0 (only at the end) or more")])


@dataclass
class CostConfig:
    dollars_per_hour: float | None = None  # of all the machines of the run together

    def check(self) -> None:
        """Raises ValueError naming the key."""
        asked = self.dollars_per_hour
        refuse_unless("cost.", self, [("dollars_per_hour", asked is None or not_negative(asked), "0 or more, or null")])


@dataclass
class RunConfig:
    output: str = "runs/run"
    seed: int = 0
    epochs: float | None = 3.0
    max_steps: int | None = None  # ends the run where it comes before `epochs` do
    processes: int | None = None  # asserted against the world that was launched
    deepspeed: str | None = None  # a file of ds_configs/; null: what the launcher says, or plain PyTorch
    parallel: str = "ddp"  # of several plain processes: ddp | fsdp2
    timeout_minutes: float = 30.0  # that a process waits for the others before it gives up
    batch_scaling: str = "keep"  # of the global batch on more processes: keep | multiply
    lr_scaling: str = "sqrt"  # of the learning rate where the batch is multiplied: sqrt | none
    precision: str = "auto"  # auto: bf16 where the chip multiplies it (Ampere, AVX-512 BF16) | fp32 | bf16
    compile: bool | None = None  # torch.compile; null: on CUDA; never under ZeRO 3
    cuda_graphs: bool = False  # replay the compiled kernels as one graph, where the host cannot launch them in time
    resume: str = "auto"  # auto: from OUTPUT's newest checkpoint if any | never | a checkpoint's folder
    model: ModelChoice = field(default_factory=ModelChoice)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    cost: CostConfig = field(default_factory=CostConfig)

    def check(self) -> None:
        """Raises ValueError naming the key, of this or of a part. `data` and `batch` look at themselves when made; what
        they may hold and a run may not is looked at here."""
        rules = [
            ("output", bool(self.output), "a folder"),
            ("seed", 0 <= self.seed < 2**63, "0 or more, below 2⁶³"),
            ("epochs", self.epochs is None or positive(self.epochs), "a number above 0, or null"),
            ("max_steps", self.max_steps is None or self.max_steps >= 1, "1 or more, or null"),
            ("processes", self.processes is None or self.processes >= 1, "1 or more, or null"),
            ("parallel", self.parallel in ("ddp", "fsdp2"), "ddp or fsdp2"),
            ("timeout_minutes", positive(self.timeout_minutes), "a number above 0"),
            ("batch_scaling", self.batch_scaling in ("keep", "multiply"), "keep or multiply"),
            ("lr_scaling", self.lr_scaling in ("sqrt", "none"), "sqrt or none"),
            ("precision", self.precision in ("auto", "fp32", "bf16"), "auto, fp32 or bf16"),
        ]
        refuse_unless("", self, rules)
        judged = (self.data.heldout_share > 0, "a share above 0: a run is judged by battles that it does not train on")
        refuse_unless("data.", self.data, [("heldout_share", *judged)])
        for part in (self.model, self.objective, self.optim, self.eval, self.checkpoint, self.log, self.guard, self.hub,
                     self.cost):  # fmt: skip
            part.check()


def load_config(path: str | Path | None, overrides: list[str] = ()) -> RunConfig:
    """Defaults → YAML file → overrides `a.b=c` (values in YAML's syntax). Raises ConfigError."""
    tree: dict[str, Any] = {}
    if path is not None:
        merge(tree, _read_yaml(Path(path)), RunConfig, str(path))
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator:
            if text.endswith((".yaml", ".yml")):
                raise ConfigError(f"command line: {text!r} is no setting: give a file of settings as --config {text}")
            raise ConfigError(f"command line: {text!r} is no setting: write it as a.b=c")
        try:
            parsed = yaml.load(value, _EachKeyOnce)
        except yaml.YAMLError as error:
            raise ConfigError(f"command line: the value of {text!r} is not YAML: {error}") from error
        if "#" in value and "#" not in str(parsed):  # else a run would go to a folder by half its name
            raise ConfigError(
                f"command line: in {text!r} YAML reads what follows # as a comment: put the value in quotes of its "
                f"own, as {shlex.quote(f'{key}={json.dumps(value, ensure_ascii=False)}')}"
            )
        for part in reversed(key.split(".")):
            parsed = {part: parsed}
        merge(tree, parsed, RunConfig, "command line")
    sources = [str(path)] if path is not None else []
    return from_tree(
        _at_home(tree), " and ".join([*sources, *(["command line"] if overrides else [])]) or "the defaults"
    )


def _at_home(tree: Any) -> Any:
    """The tree with a leading ~/ of its texts, which are paths then, spelt out: no shell has read it in a file or
    behind a `=`, and a folder of the name ~ is nobody's wish."""
    if isinstance(tree, dict):
        return {key: _at_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_at_home(value) for value in tree]
    return os.path.expanduser(tree) if isinstance(tree, str) and tree.startswith("~/") else tree


def from_tree(tree: dict, source: str) -> RunConfig:
    """A RunConfig from a plain dict of already known keys. Raises ConfigError naming the key of a wrong type."""
    try:
        config = msgspec.convert(tree, RunConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_said_of_type(str(error))}") from error
    try:
        config.check()
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    return config


def scale_to_world(config: RunConfig, world: int) -> RunConfig:
    """What each of `world` processes does, so that the global batch is what `batch_scaling` says.

    `keep`: battles × accumulate of the file stay the whole world's; each process takes its share, in as few micro-steps
    as `battles` allows. `multiply`: each process does what the file says, and the learning rate grows by √world
    (`lr_scaling: sqrt`; Krizhevsky 2014, and the rule that Adam's noise scale suggests, Malladi et al. 2022).
    Raises ConfigError where the batch cannot be shared out evenly.
    """
    if world == 1:
        return config
    if config.batch_scaling == "multiply":
        lr = config.optim.lr * (math.sqrt(world) if config.lr_scaling == "sqrt" else 1.0)
        return dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=lr))
    whole = config.batch.battles * config.batch.accumulate
    share, rest = divmod(whole, world)
    accumulate = next((a for a in range(1, share + 1) if share % a == 0 and share // a <= config.batch.battles), None)
    if rest or accumulate is None:
        raise ConfigError(
            f"batch.battles × batch.accumulate = {whole} cannot be shared evenly by {world} processes: choose a "
            "multiple of their number, or batch_scaling=multiply"
        )
    battles = share // accumulate
    turns = config.batch.turns and max(config.data.max_turns, config.batch.turns * battles // config.batch.battles)
    batch = dataclasses.replace(config.batch, battles=battles, accumulate=accumulate, turns=turns)
    return dataclasses.replace(config, batch=batch)


def to_tree(config: RunConfig) -> dict:
    """The resolved configuration as plain dicts, to be saved with every checkpoint."""
    return dataclasses.asdict(config)


def merge(tree: dict, new: dict, schema: type, source: str, prefix: str = "") -> None:
    """Lay `new` over `tree`, refusing keys that `schema` does not have. Raises ConfigError with the nearest name."""
    if not isinstance(new, dict):
        place = prefix.removesuffix(".") or "the file"
        raise ConfigError(f"{source}: {place} holds {type(new).__name__}, where keys were expected")
    hints = get_type_hints(schema)
    for key, value in new.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise ConfigError(f"{source}: unknown key {name!r}{_nearest(str(key), hints)}")
        inner = _dataclass_of(hints[key])
        if inner is not None:
            # Nothing at all: a section whose keys are all commented out.
            merge(tree.setdefault(key, {}), {} if value is None else value, inner, source, f"{name}.")
        elif isinstance(value, str) and float in (hints[key], *get_args(hints[key])):
            tree[key] = _number(value, name, source)
        else:
            tree[key] = value


def _said_of_type(text: str) -> str:
    """msgspec's "Expected `array`, got `str` - at `$.a.b`" as the key and what to give; other texts as they are."""
    if found := re.fullmatch(r"Expected `array` of length (\d+), got (\d+) - at `\$\.(.+)`", text):
        return f"{found[3]}: give a list of {found[1]}, not of {found[2]}"
    if (found := re.fullmatch(r"Expected `(.+)`, got `(.+)` - at `\$\.(.+)`", text)) is None:
        words, _, path = text.partition(" - at `$.")
        return words if path and path[:-1] in words else text  # our own words name the key themselves
    if found[2] == "bool" and "str" in found[1].split(" | "):
        never = ", or resume=never" if found[3] == "resume" else ""  # what resume=no means
        return f"{found[3]}: YAML reads yes, no, on and off as true or false: put the word in quotes{never}"
    empty = " is empty" if found[2] == "null" else ""
    return f"{found[3]}{empty}: give {' or '.join(_KINDS.get(kind, kind) for kind in found[1].split(' | '))}"


def _number(value: str, name: str, source: str) -> float:
    # YAML 1.1 reads 3e-4 as text; people write it all the same.
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"{source}: {name}={value!r} is not a number") from error


def _dataclass_of(hint: Any) -> type | None:
    for candidate in (hint, *get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return candidate
    return None


def _nearest(key: str, known) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(known)}"


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): give --config an existing YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    return tree or {}
