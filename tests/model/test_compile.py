"""torch.compile takes the whole objective in one graph, once, whatever the battles' lengths and the engine."""

from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch._dynamo.utils import counters

from model.attention import choose_implementation
from tests.packs import random_pack, tiny_network
from trainer.objective import ObjectiveConfig, OfflineRL, compile_forward, polyak_update

PACKS = 50
SIZES = {"num_layers": 1, "max_turns": 64, "value_bins": 16, "critics": 2}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def pack_of(seed):
    return random_pack(turns=128, longest=64, seed=seed)


def step_inputs(objective, seed, device="cpu"):
    """What `TrainStep` gives the module for one pack: batch, denominators, the critics drawn, the filter's switch."""
    pack = {key: value.to(device) for key, value in pack_of(seed).items()}
    critics = objective.network.config.critics
    drawn = torch.randperm(critics, generator=torch.Generator().manual_seed(seed))[:2]
    subset = drawn if critics > 1 else drawn.repeat(2)
    return pack, objective.counts(pack), subset.to(device), torch.full((), float(seed >= PACKS // 2), device=device)


def loss_and_gradients(module, objective, inputs, autocast=nullcontext):
    objective.zero_grad(set_to_none=True)
    torch.manual_seed(0)  # of dropout and of words that become unknown
    with autocast():
        loss, metrics = module(*inputs)
    loss.backward()
    return loss.detach(), metrics, {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def move_on(objective):
    """An update by hand, in place as an optimizer does it, so that later packs meet other weights and targets."""
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-3)
    polyak_update(objective, objective.config.tau)


def train_compiled(
    objective, device="cpu", autocast=nullcontext, loss_within=1e-4, gradients_within=1e-3, seeds=range(PACKS)
):
    """Ragged packs (50 unless told which), filter off and on, weights moving. `error_on_recompile` raises at a second
    compilation; losses and gradients are held against eager ones on the way."""
    assert len({int(pack_of(seed)["segment"].max()) for seed in seeds}) > 3, "the packs are not ragged"
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in seeds:
            inputs = step_inputs(objective, seed, device)
            loss, _, gradients = loss_and_gradients(objective, objective, inputs, autocast)
            if seed % 10 == 0:
                with torch.compiler.set_stance("force_eager"):
                    eager, _, expected = loss_and_gradients(objective, objective, inputs, autocast)
                torch.testing.assert_close(loss, eager, rtol=loss_within, atol=loss_within)
                assert gradients.keys() == expected.keys()
                for name, gradient in expected.items():
                    far = ((gradients[name] - gradient).norm() / gradient.norm().clamp_min(1e-3)).item()
                    assert far < gradients_within, f"{name}: {far:.2g} of its norm from the eager gradient"
            move_on(objective)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_one_graph_no_recompilation_and_the_eager_loss(backend):
    """`fullgraph` raises at a graph break. Graphs and guards are the same with both backends; the inductor (a minute
    where its cache is cold) adds the kernels."""
    objective = OfflineRL(tiny_network(**SIZES), ObjectiveConfig()).train()
    compile_forward(objective, fullgraph=True, backend=backend)
    train_compiled(objective)


OPTIONS = [  # of the network, and of the objective
    ({"turn_encoder": "transformer"}, {}), ({"value_head": "scalar"}, {}), ({"value_spacing": "symlog"}, {}),
    ({"dropout": 0.1}, {}), ({"critics": 1}, {}), ({"use_previous_action": False, "use_previous_reward": False}, {}),
    ({}, {"filter": "imitation"}), ({}, {"filter": "winners"}), ({}, {"filter": "exponential"}),
    ({}, {"maxq_weight": 0.1}), ({}, {"n_step": 3}), ({}, {"discount_forced": False}), ({}, {"unknown_words": 0.1}),
    ({}, {"target": "network"}), ({}, {"target_reduce": "mean"}), ({}, {"filter_floor": 0.1}),
    ({}, {"value_of": "behaviour"}),
]  # fmt: skip


CHECKPOINTED = [({"turn_encoder": "transformer"}, {}), ({"dropout": 0.1}, {}), ({}, {"target": "network"})]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "terms", "checkpointing"),
    [*((*option, False) for option in OPTIONS), *((*option, True) for option in CHECKPOINTED)],
    ids=lambda part: " ".join(f"{k}={v}" for k, v in part.items()) if isinstance(part, dict) else str(part),
)
def test_every_option_is_one_graph_with_the_eager_loss(sizes, terms, checkpointing):
    """With gradient checkpointing where it reaches what the option changes."""
    network = tiny_network(**SIZES | sizes)
    if checkpointing:
        network.gradient_checkpointing_on()
    objective = OfflineRL(network, ObjectiveConfig(**terms)).train()
    compile_forward(objective, fullgraph=True, backend="aot_eager")
    train_compiled(objective, seeds=range(0, PACKS, 5))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [None, "reduce-overhead"], ids=["launched", "CUDA graphs"])
def test_the_same_on_a_gpu_in_bf16(mode):
    """With the variable-length kernel inside the graph, where the machine has one. The bounds leave room for bf16, and
    for the few turns whose advantage it lets change sign."""
    objective = OfflineRL(tiny_network(**SIZES), ObjectiveConfig()).train().cuda()
    objective.targets.cuda()
    objective.network.attention = choose_implementation("auto", "cuda")
    compile_forward(objective, fullgraph=True, mode=mode)
    train_compiled(objective, "cuda", lambda: torch.autocast("cuda", torch.bfloat16), 2e-2, 0.2)


@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor"))]
)
def test_no_graph_break_in_bf16_as_accelerate_prepares_it(backend):
    """The GPU's default: accelerate wraps `forward` in autocast after `Run` has asked for compilation, and that must
    not break the graph, which is the same whatever computes it. PyTorch's compiler for CPUs writes no valid C++ where
    one sum of bf16 is two gradients."""
    objective = OfflineRL(tiny_network(**SIZES), ObjectiveConfig()).train()
    compile_forward(objective, backend=backend)
    AcceleratorState._reset_state(reset_partial_state=True)  # of runs before, of another precision perhaps
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    module = accelerator.prepare(objective)
    for seed in range(4):
        loss, _, gradients = loss_and_gradients(module, objective, step_inputs(objective, seed))
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        move_on(objective)
    assert not counters["graph_break"], dict(counters["graph_break"])
    assert counters["stats"]["unique_graphs"] == 1
