"""Muon against a plain loop, against torch's own, and inside a run: one step, a skipped step, a resumed run."""

import math

import pytest
import torch

from tests.packs import tiny_network
from tests.trainer.conftest import SMALL
from trainer.config import load_config
from trainer.loop import Run
from trainer.muon import COEFFICIENTS, STEPS, MuonAdamW, matrices_of, orthogonalized
from trainer.objective import ObjectiveConfig, OfflineRL
from trainer.optim import OptimConfig, build_optimizer, set_learning_rate
from trainer.state import gather, scatter
from trainer.step import found_inf

CONFIG = OptimConfig(name="muon", weight_decay=0.1, muon_scale=0.5)


def newton_schulz_loop(matrix):
    """One matrix in fp64, product by product."""
    a, b, c = COEFFICIENTS
    x = matrix.double()
    x = x / x.square().sum().sqrt()
    for _ in range(STEPS):
        third = x @ x.T @ x
        x = a * x + b * third + c * x @ x.T @ third
    return x


def objective_with_gradients(seed=0):
    torch.manual_seed(seed)
    objective = OfflineRL(tiny_network(), ObjectiveConfig())
    give_gradients(objective, seed)
    return objective


def give_gradients(objective, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in objective.network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(6, 24), (24, 6), (16, 16)])
def test_orthogonalized_is_the_loop_and_nearly_orthogonal(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    moves = orthogonalized(matrices)
    for matrix, move in zip(matrices, moves, strict=True):
        torch.testing.assert_close(move.double(), newton_schulz_loop(matrix), rtol=1e-3, atol=1e-4)
    if shape != (16, 16):  # a square one has singular values too near 0 for five steps
        values = torch.linalg.svdvals(moves)
        assert values.min() > 0.6
        assert values.max() < 1.3
    # A matrix that nothing reached, as where no action was recorded, has no direction to go in.
    assert not orthogonalized(torch.zeros(2, *shape)).any()


def test_one_matrix_moves_as_by_torchs_own():
    ours, theirs = (torch.nn.Parameter(torch.randn(8, 24, generator=torch.Generator().manual_seed(2))) for _ in "ab")
    settings = {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9}
    idle = torch.nn.Parameter(torch.ones(8, 24))  # without a gradient: left as it is, weight decay and all
    mine = MuonAdamW({ours: 1, idle: 1}, [{"params": []}], betas=(0.9, 0.95), eps=1e-8, scale=1.0, **settings)
    reference = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings)
    for step in range(3):
        ours.grad = torch.randn(8, 24, generator=torch.Generator().manual_seed(step))
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
    assert torch.equal(idle, torch.ones(8, 24))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3 * 0.1 * 0.2 * math.sqrt(24) * 0.02)  # it computes in bf16


def test_two_steps_against_a_plain_loop():
    objective = objective_with_gradients()
    optimizer = build_optimizer(objective, CONFIG)
    matrices = matrices_of(objective.network.model.trunk)
    pieces = {"attention.qkv": 3, "attention.proj": 1, "mlp.up": 2, "mlp.down": 1}  # q, k and v; value and gate
    layers = objective.network.model.trunk.layers
    assert matrices == {layer.get_submodule(name).weight: n for layer in layers for name, n in pieces.items()}
    expected = {p: p.detach().double() for p in matrices}
    momenta = {p: torch.zeros_like(p, dtype=torch.float64) for p in matrices}
    for step, lr in enumerate((0.1, 0.05)):
        give_gradients(objective, step)
        set_learning_rate(optimizer, lr)
        for p, pieces in matrices.items():
            momenta[p] = 0.95 * momenta[p] + 0.05 * p.grad.double()
            update = 0.05 * p.grad.double() + 0.95 * momenta[p]
            moved = []
            for old, part in zip(expected[p].chunk(pieces), update.chunk(pieces), strict=True):
                reach = 0.2 * math.sqrt(max(part.shape)) * lr * CONFIG.muon_scale
                moved.append(old * (1 - lr * CONFIG.muon_scale * 0.1) - reach * newton_schulz_loop(part))
            expected[p] = torch.cat(moved)
        optimizer.step()
    for p, value in expected.items():
        torch.testing.assert_close(p.detach().double(), value, rtol=1e-3, atol=1e-4)


def test_everything_else_moves_as_under_adamw():
    with_muon, without = objective_with_gradients(), objective_with_gradients()
    for objective, name in ((with_muon, "muon"), (without, "adamw")):
        build_optimizer(objective, OptimConfig(name=name, weight_decay=0.1)).step()
    matrices = matrices_of(with_muon.network.model.trunk)
    named = list(with_muon.network.named_parameters())
    assert 0 < len(matrices) < len(named)
    for (name, a), b in zip(named, without.network.parameters(), strict=True):
        assert torch.equal(a, b) == (a not in matrices), name


def test_a_step_that_is_not_finite_changes_nothing():
    objective = objective_with_gradients()
    optimizer = build_optimizer(objective, CONFIG)
    optimizer.step()
    before = {n: p.detach().clone() for n, p in objective.network.named_parameters()}
    moments = {n: optimizer.state[p] for n, p in objective.network.named_parameters()}
    kept = {n: {k: v.clone() for k, v in state.items()} for n, state in moments.items()}
    for parameter in objective.network.parameters():
        parameter.grad.fill_(float("nan"))
    with found_inf(optimizer, torch.tensor(1.0)):
        optimizer.step()
    for name, parameter in objective.network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert all(torch.equal(moments[name][kind], kept[name][kind]) for kind in kept[name] if kind != "step")


def test_a_run_resumes_bit_by_bit_and_changes_over_from_another(cached, tmp_path):
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=4", "batch.battles=2"]

    def start(name, state=None, at=0):
        run = Run(load_config(None, [*settings, f"optim.name={name}"]))
        if state is not None:
            scatter(state, run.accelerator, run.module, run.objective, run.optimizer)
        run.course.open(at)
        return run

    def state_after(run, steps):
        for step in steps:
            run.step(step, run.course.micro(step))
        return gather(run.accelerator, run.module, run.objective, run.optimizer)

    whole = start("muon")
    half = state_after(whole, (0, 1))
    expected = state_after(whole, (2, 3))
    resumed = state_after(start("muon", half, at=2), (2, 3))
    for ours, theirs in ((expected.network, resumed.network), (expected.moments, resumed.moments)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert {key.split("/")[0] for key in half.moments if key.endswith("layers.0.mlp.up.weight")} == {"momentum_buffer"}
    # Another optimizer's checkpoint: what both know is taken over, the rest starts anew.
    changed = start("adamw", half, at=2)
    for name, parameter in changed.objective.network.named_parameters():
        moment = changed.optimizer.state[parameter]["exp_avg"]
        assert torch.equal(moment, half.moments.get(f"exp_avg/{name}", torch.zeros_like(moment)))
    assert not any(key.startswith("momentum_buffer") for key in state_after(changed, (2,)).moments)
