"""What a run's modules are made of, counted on the meta device: parameters, FLOPs, the memory that a step works in."""

import tempfile
import weakref
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.collate import PackLayout
from data.observation import space_named
from data.packing import PackShape
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.config import RunConfig
from trainer.finetune import starting_model
from trainer.flops import flops_per_turn
from trainer.muon import matrices_of
from trainer.objective import OfflineRL, Targets
from trainer.setup import network_config


@dataclass(frozen=True)
class Counted:
    """What the modules say. Bytes are of fp32 and a turn."""

    parameters: int
    layer: int  # parameters of one trunk layer: what ZeRO 3 and FSDP2 gather at once
    targets: int
    working_bytes: float
    flops: float  # of a training step, a turn
    averaged: int = 0  # parameters of the weights' average (optim.ema)
    moments: int = 0  # numbers that the optimizer keeps of the gradients: AdamW's two a parameter


def count(config: RunConfig) -> Counted:
    """Build the network on the meta device and count. Raises ConfigError, ValueError."""
    config, tokenizer = _resolved(config)
    with torch.device("meta"):
        network = TurnwiseForOfflineRL(
            network_config(config.model, config.data, tokenizer, config.objective.reward_scale)
        )
    network.attention = "sdpa"
    if config.model.gradient_checkpointing:
        network.gradient_checkpointing_on()
    pack = empty_pack(config, turns=512)
    layer = sum(p.numel() for p in network.model.trunk.layers[0].parameters())
    parameters = sum(p.numel() for p in network.parameters())
    whole = config.objective.target == "network"
    flops = flops_per_turn(network.config, pack, whole)
    recomputed = 0.0
    if config.model.gradient_checkpointing:
        recomputed = flops["trunk"] + (flops["encoder"] if network.config.turn_encoder == "transformer" else 0.0)
    once = sum(p.numel() for p in matrices_of(network.model.trunk))
    return Counted(
        parameters,
        layer,
        sum(p.numel() for p in Targets(network, whole).parameters()),
        working_bytes(config, network),
        flops["train"] + recomputed,
        averaged=parameters if config.optim.ema > 0 else 0,
        moments={"adamw": 2 * parameters, "muon": 2 * parameters - once, "sgd": 0}[config.optim.name],
    )


def _resolved(config: RunConfig) -> tuple[RunConfig, Tokenizer]:
    """The configuration and vocabulary that the run will have: with `model.init_from`, the sizes of the model named."""
    if config.model.init_from is None:
        return config, Tokenizer.load(config.data.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        start = starting_model(replace(config, output=folder))
    return start.config, start.tokenizer


def empty_pack(config: RunConfig, turns: int) -> dict[str, torch.Tensor]:
    """A pack's shapes without content, on the meta device."""
    shape = PackShape(turns, turns // 64 + 1, config.data.max_turns)
    layout = PackLayout(shape, space_named(config.data.space))
    return layout.tensors(torch.empty(layout.nbytes, dtype=torch.uint8, device="meta"))


class LivePeak(TorchDispatchMode):
    """The most bytes that tensors made inside were holding at once. On the meta device nothing is computed or held."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def freed(_):
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def working_bytes(config: RunConfig, network: TurnwiseForOfflineRL) -> float:
    """Bytes a turn, in fp32, that a step holds at its peak beside parameters and what is theirs: activations kept for
    the backward pass, and what passes by. The slope between packs of two sizes, so that gradients fall out."""
    objective = OfflineRL(network, config.objective).to("meta")
    objective.targets.to("meta")
    peaks = []
    for turns in (2048, 4096):
        objective.zero_grad(set_to_none=True)
        counts = torch.empty(2, dtype=torch.float64, device="meta")
        subset, filtering = torch.empty(2, dtype=torch.int64, device="meta"), torch.empty((), device="meta")
        pack = empty_pack(config, turns)
        with LivePeak() as live:
            objective(pack, counts, subset, filtering)[0].backward()
        peaks.append(live.peak)
    return (peaks[1] - peaks[0]) / 2048
