"""One step of a run: what it makes of its micro-batches' figures, how far it moves, and what it draws."""

import zlib
from itertools import combinations

import pytest
import torch

from tests.trainer.conftest import rows_of, run_of
from trainer.optim import learning_rate


def test_a_steps_figures_and_what_follows_the_update_by_hand(cached, tmp_path):
    """Sums over micro-batches, the filter from step `filter_warmup` on, targets and PopArt at their rates."""
    run = run_of(
        cached, tmp_path, "max_steps=9", "batch.accumulate=2", "model.value_head=scalar", "objective.filter_warmup=1",
        "objective.popart_rate=0.25", "objective.tau=0.5", "data.clone=won",
    )  # fmt: skip
    run.course.open(0)
    objective, popart = run.objective, run.objective.network.popart
    for step in (0, 1, 2):
        packs = run.course.micro(step)
        if step == 2:  # nothing to clone: the critics learn all the same
            for pack in packs:
                pack["cloned"][:] = False
        counts = sum(objective.counts(pack) for pack in packs)
        subset = run.step._critic_subset(step, torch.device("cpu"))
        with torch.no_grad():
            parts = [objective(pack, counts, subset, torch.tensor(float(step > 0)))[1] for pack in packs]
        slow = [p.clone() for p in objective.targets.parameters()]
        mean, second = popart.mean.clone(), popart.second.clone()
        metrics = run.step(step, packs)
        for name, value in parts[0].items():
            torch.testing.assert_close(metrics[name], value + parts[1][name], rtol=1e-4, atol=1e-5, msg=name)
        assert metrics["_cloned"] == counts[0] < counts[1]
        assert (metrics["filter/weight"] < 0.999).all() == (step > 0)
        assert torch.initial_seed() == run.step._seed(step, 0)
        assert {group["lr"] for group in run.optimizer.param_groups} == {learning_rate(step, 9, run.config.optim)}
        online = [p for _, fast in objective.targets.pairs(objective.network) for p in fast.parameters()]
        for before, after, p in zip(slow, objective.targets.parameters(), online, strict=True):
            torch.testing.assert_close(after, 0.5 * before + 0.5 * p)
        torch.testing.assert_close(popart.mean, 0.75 * mean + 0.25 * metrics["value/target"])
        torch.testing.assert_close(popart.second, 0.75 * second + 0.25 * metrics["value/target_square"])
    packs = run.course.micro(3)
    packs[0]["numbers"][:] = torch.nan
    before = [value.clone() for value in (*objective.network.parameters(), *objective.network.buffers())]
    assert run.step(3, packs)["optim/skipped"] == 1
    after = (*objective.network.parameters(), *objective.network.buffers())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(p.isfinite().all() for p in objective.targets.parameters())


def test_a_gradient_is_clipped_to_its_norm_and_told_as_it_was(cached, tmp_path):
    """With plain SGD at a rate of 1 the parameters move by the gradient itself."""
    run = run_of(
        cached, tmp_path, "max_steps=9", "optim.name=sgd", "optim.lr=1.0", "optim.warmup_steps=0", "lr_scaling=none",
        "optim.schedule=constant", "optim.weight_decay=0",
    )  # fmt: skip
    run.course.open(0)
    packs = run.course.micro(0)
    for step, clip in enumerate((1e-3, 0.0)):  # 0: no clipping
        run.step.config.grad_clip = clip
        before = [p.detach().clone() for p in run.objective.network.parameters()]
        metrics = run.step(step, packs)
        moved = torch.stack([(p - b).norm() for p, b in zip(run.step.parameters, before, strict=True)]).norm()
        norm = metrics["optim/grad_norm"].item()
        assert norm > 0.1
        assert moved.item() == pytest.approx(clip or norm, rel=2e-3)
        parts = [metrics[f"optim/grad_norm_{part}"] for part in ("encoder", "trunk", "actor", "critics")]
        assert torch.stack(parts).norm().item() == pytest.approx(norm, rel=1e-4)
    assert "optim/grad_norm_trunk" not in run.step(2, packs, detailed=False)


def test_targets_are_of_two_critics_another_pair_from_step_to_step(cached, tmp_path):
    step, cpu = run_of(cached, tmp_path, "max_steps=9").step, torch.device("cpu")
    pairs = [tuple(sorted(step._critic_subset(number, cpu).tolist())) for number in range(60)]
    assert set(pairs) == set(combinations(range(4), 2))
    assert pairs == [tuple(sorted(step._critic_subset(number, cpu).tolist())) for number in range(60)]
    # Dropout's generator is another at each step and on each process, and none is that of the pairs.
    assert len({step._seed(number, process) for number in range(20) for process in (-1, 0, 1, 2)}) == 80


def test_a_logged_row_tells_of_the_steps_since_the_one_before(cached, tmp_path):
    """How many battles to how many turns, the last one's rate; and which windows all so far were, as one number."""
    run = run_of(cached, tmp_path, "max_steps=5", "log.every=2", "batch.accumulate=2")
    assert run.train() == 0
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["1", "2", "4", "5"]
    run.course.open(0)
    done = order = 0
    for row in rows:
        packs = [pack for step in range(done, int(row["step"])) for pack in run.course.micro(step)]
        done = int(row["step"])
        order = zlib.crc32(b"".join(pack["windows"].numpy().tobytes() for pack in packs), order)
        assert float(row["data/order_crc32"]) == order
        assert float(row["optim/lr"]) == pytest.approx(learning_rate(done - 1, 5, run.config.optim))
        battles = sum(int((pack["windows"][:, 0] >= 0).sum()) for pack in packs)
        turns = sum(int(pack["valid"].sum()) for pack in packs)
        speeds = float(row["speed/battles_per_s"]), float(row["speed/turns_per_s"])
        assert speeds[0] / speeds[1] == pytest.approx(battles / turns, rel=1e-3)
        assert 0.001 < battles / speeds[0] < 100  # seconds
