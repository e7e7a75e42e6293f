"""Every term of the objective against plain NumPy loops in fp64, and the whole loss against their sum."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.reward import REWARDS
from model.heads import PopArt, value_support
from tests.packs import random_pack, tiny_network
from trainer import losses
from trainer.objective import ObjectiveConfig, OfflineRL, derived_support, polyak_update
from trainer.rows import OVER_POLICY

N, G, C, A, K = 7, 4, 4, 13, 32
RNG = np.random.default_rng(0)
ON = torch.tensor(1.0)


def tensor(array):
    return torch.from_numpy(np.asarray(array))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_log_prob_and_state_value():
    logits, action = RNG.normal(size=(N, G, A)), RNG.integers(0, A, N)
    q = RNG.normal(size=(N, G, A))
    log_prob = losses.action_log_prob(tensor(logits), tensor(action))
    value = losses.state_value(tensor(softmax(logits)), tensor(q))
    for n in range(N):
        for g in range(G):
            p = softmax(logits[n, g])
            assert log_prob[n, g].item() == pytest.approx(math.log(p[action[n]]), rel=1e-5)
            assert value[n, g].item() == pytest.approx(sum(p[a] * q[n, g, a] for a in range(A)), rel=1e-4, abs=1e-5)


def test_advantage_and_filters():
    q, logits = RNG.normal(size=(N, G, C, A)) * 5, RNG.normal(size=(N, G, A))
    action = RNG.integers(0, A, N)
    got = losses.advantage(tensor(q), tensor(softmax(logits)), tensor(action))
    for n in range(N):
        for g in range(G):
            mean_q = [sum(q[n, g, c, a] for c in range(C)) / C for a in range(A)]
            expected = mean_q[action[n]] - sum(softmax(logits[n, g])[a] * mean_q[a] for a in range(A))
            assert got[n, g].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
            for kind, want in (
                ("imitation", 1.0),
                ("binary", float(expected > 0)),
                ("exponential", min(math.exp(0.5 * expected), 3.0)),
            ):
                assert losses.filter_weight(kind, got, 0.5, 3.0)[n, g].item() == pytest.approx(want, rel=1e-4)
    # An action no better than the policy is not kept: of fresh scalar critics, to whom all are the same, none is.
    assert losses.filter_weight("binary", torch.tensor([0.0, 1e-6, -1e-6]), 1.0, 1.0).tolist() == [0.0, 1.0, 0.0]
    assert torch.isfinite(losses.filter_weight("exponential", torch.tensor([1e9]), 1.0, 50.0)).all()
    with pytest.raises(ValueError, match="imitation, winners, binary or exponential"):
        losses.filter_weight("best", got, 1.0, 1.0)


@pytest.mark.parametrize("reduce", ["min", "mean"])
def test_td_targets_stop_at_the_end_of_a_battle(reduce):
    q, probs = RNG.normal(size=(N, G, C, A)) * 100, softmax(RNG.normal(size=(N, G, A)))
    reward, done, gammas = RNG.normal(size=N), RNG.random(N) < 0.4, np.array([0.9, 0.99, 0.999, 0.9999])
    subset = [2, 0]
    value = losses.pooled_value(tensor(q)[:, :, subset], tensor(probs), reduce)
    poisoned = torch.where(tensor(done).unsqueeze(-1), torch.nan, value)
    target = losses.td_target(tensor(reward), tensor(done), poisoned, tensor(gammas).float())
    for n in range(N):
        for g in range(G):
            pool = min if reduce == "min" else (lambda pair: sum(pair) / 2)
            v = sum(probs[n, g, a] * pool([q[n, g, c, a] for c in subset]) for a in range(A))
            assert value[n, g].item() == pytest.approx(v, rel=1e-4, abs=1e-4)
            expected = reward[n] if done[n] else reward[n] + gammas[g] * v
            assert target[n, g].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("spacing", ["linear", "symlog"])
def test_two_hot_cross_entropy(spacing):
    config = tiny_network(value_spacing=spacing).config
    support = value_support(config)
    assert support.dtype == torch.float32
    assert (support.diff() > 0).all()
    assert support[0].item() == pytest.approx(config.value_min)
    assert support[-1].item() == pytest.approx(config.value_max)
    logits = RNG.normal(size=(N, K))
    targets = [support[0].item(), support[-1].item(), 5000.0, -5000.0, 0.0, 3.3, -777.7]
    got = losses.two_hot_loss(tensor(logits), torch.tensor(targets), support)
    bins = support.double().numpy()
    for n, target in enumerate(targets):
        target = min(max(target, bins[0]), bins[-1])
        label = np.zeros(K)
        for k in range(K - 1):
            if bins[k] <= target <= bins[k + 1]:
                high = (target - bins[k]) / (bins[k + 1] - bins[k])
                label[:] = 0
                label[k], label[k + 1] = 1 - high, high
        assert (label * bins).sum() == pytest.approx(target, abs=1e-3)
        assert got[n].item() == pytest.approx(-(label * np.log(softmax(logits[n]))).sum(), rel=1e-4)


def test_popart_keeps_values_while_its_statistics_move():
    popart, raw = PopArt(G, scale=50.0), torch.randn(N, G)
    before = popart.value(raw).clone()
    popart.update(torch.tensor([3.0, -50.0, 100.0, 7.0]), torch.tensor([90.0, 9000.0, 20000.0, 60.0]), 0.5)
    assert torch.allclose(popart.value(raw), before, rtol=1e-4, atol=1e-4)
    expected = (0.5 * torch.tensor([90.0, 9000.0, 20000.0, 60.0]) + 0.5 * 2500 - popart.mean**2).sqrt()
    assert torch.allclose(popart.std(), expected)
    assert torch.allclose(popart.normalized(raw), (before - popart.mean) / popart.std(), atol=1e-4)
    # Targets that are all the same, as in battles of one kind without an end, deviate by nothing.
    popart.update(torch.full((G,), 7.0), torch.full((G,), 49.0), 1.0)
    assert (popart.std() > 0).all()
    assert torch.allclose(popart.value(raw), before, rtol=1e-3, atol=1e-3)


def test_masked_sum_leaves_a_masked_nan_out():
    values = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan], [3.0, 4.0]])
    assert losses.masked_sum(values, torch.tensor([True, False, True])).tolist() == [4.0, 6.0]


OPTIONS = [
    {"filter": "imitation"},
    {"filter": "winners"},
    {"filter": "binary"},
    {"filter": "binary", "filter_floor": 0.2},
    {"filter": "exponential"},
    {"filter": "binary", "maxq_weight": 0.3},
    {"n_step": 3},
    {"n_step": 5, "discount_forced": False},
    {"target": "network"},
    {"target_reduce": "mean"},
    {"value_of": "behaviour", "maxq_weight": 0.3},
]


def test_targets_are_taken_without_dropout():
    objective = OfflineRL(tiny_network(dropout=0.5).train(), ObjectiveConfig(target="network")).train()
    pack = random_pack(96, longest=40)
    seen = [objective(pack, objective.counts(pack), torch.tensor([3, 1]), ON)[1] for _ in range(2)]
    assert not torch.equal(seen[0]["policy/nll"], seen[1]["policy/nll"])
    assert torch.equal(seen[0]["value/target"], seen[1]["value/target"])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("value_head", ["two_hot", "scalar"])
def test_the_whole_loss_equals_its_terms_in_loops(options, value_head):
    """The module's loss from nothing but its heads' outputs, turn by turn."""
    network = tiny_network(value_head=value_head).eval()
    config = ObjectiveConfig(policy_weight=0.7, critic_weight=1.3, **options)
    objective = OfflineRL(network, config)
    with torch.no_grad():
        for p in objective.targets.parameters():
            p.add_(0.05 * torch.randn_like(p))
    pack = random_pack(96, longest=40)
    # Beyond the support, either way: counted as clipped where there is one.
    beyond = (pack["action_known"] & pack["decision"] & pack["cloned"]).nonzero().flatten()[[3, 8, 9]]
    pack["reward"][beyond] = torch.tensor([700.0, -700.0, 800.0])
    # An action recorded where nothing is legal is one for the critics to judge, not for the policy to clone.
    pack["legal"][beyond[1]] = False
    subset = torch.tensor([3, 1])
    counts = objective.counts(pack)
    loss, metrics = objective(pack, counts, subset, ON)

    with torch.no_grad():
        hidden, entities = network.features(pack)
        logits = network.policy_logits(hidden, entities, pack["legal"]).double()
        out = network.critics(hidden, entities)
        q = network.expected_values(out).double()
        slow = network.features(pack, objective.targets.model) if config.target == "network" else (hidden, entities)
        target_logits = objective.targets.actor(*slow).double()
        target_q = network.expected_values(objective.targets.critics(*slow)).double()
    support = value_support(network.config).double()
    won = 100.0 * network.config.reward_scale
    assert network.config.reward_kind == "shaped"

    behaviour = config.value_of == "behaviour"

    def pooled_value(all_logits, all_q, n, g):
        legal, its = pack["legal"][n], all_logits[n, 0 if behaviour else g]
        masked = its.masked_fill(~legal, -torch.inf) if legal.any() else its
        pair = torch.stack([all_q[n, g, 3], all_q[n, g, 1]])
        pooled = pair.amin(0) if config.target_reduce == "min" else pair.mean(0)
        return (masked.softmax(-1) * pooled).sum().item()

    def slow_value(n, g):
        return pooled_value(target_logits, target_q, n, g)

    def target_of(n, g, steps):
        """r + γ(…): `steps` rewards at most, fewer where the battle ends or the next action is not recorded."""
        reward = pack["reward"][n].item() * 10.0
        if pack["done"][n]:
            return reward
        gamma = 1.0 if pack["forced"][n] and not config.discount_forced else network.config.gammas[g]
        on = steps > 1 and bool(pack["decision"][n + 1] and pack["action_known"][n + 1])
        return reward + gamma * (target_of(n + 1, g, steps - 1) if on else slow_value(n + 1, g))

    def told(name, value, counts=True):
        sums.setdefault(name, [0.0] * G)[g] += float(value) * counts

    policy_sum = critic_sum = maxq_sum = n_policy = n_critic = 0.0
    sums = {}  # of the metrics, per γ
    for n in range(96):
        if not (pack["action_known"][n] and pack["decision"][n]):
            continue
        n_critic += 1
        counted = bool(pack["legal"][n].any() and pack["cloned"][n])
        n_policy += counted
        a = int(pack["action"][n])
        for g in range(G):
            p = logits[n, g].softmax(-1)
            mean_q = q[n, g].mean(0)
            value = ((logits[n, 0].softmax(-1) if behaviour else p) * mean_q).sum()
            advantage = mean_q[a] - value
            clones = behaviour and g == 0
            weight = {
                "imitation": 1.0,
                "winners": float(pack["outcome"][n] == 1),
                "binary": float(advantage > 0),
                "exponential": math.exp(min(0.5 * advantage, math.log(50.0))),
            }[config.filter]
            floored = 1.0 if clones else max(weight, config.filter_floor)
            policy_sum += floored * -p[a].log().item() * counted
            maxq_sum += (p * mean_q).sum().item() / won * counted * (not clones)
            target = target_of(n, g, config.n_step)
            told("policy/nll", -p[a].log(), counted)
            told("policy/accuracy", p.argmax() == a, counted)
            told("policy/entropy", -(p * p.clamp_min(1e-300).log()).sum(), counted)
            told("filter/share_kept", np.float32(weight) > 0, counted)  # of an exponential may be rounded away
            told("filter/weight", floored, counted)
            told("value/q_data", mean_q[a], counted)
            told("value/policy_minus_data", value - mean_q[a], counted)
            told("value/target_drift", slow_value(n, g) - pooled_value(logits, q, n, g), counted)
            told("value/target", target)
            told("value/target_square", target**2)
            told("value/td_error", abs(mean_q[a] - target))
            told("value/target_clipped", value_head == "two_hot" and not support[0] <= target <= support[-1])
            for c in range(C):
                if value_head == "scalar":
                    popart = network.popart
                    normal = (target - popart.mean[g]) / popart.std()[g]
                    critic_sum += ((popart.normalized(out[c, n, a, :, 0])[g] - normal) ** 2).item() / C
                else:
                    critic_sum += (
                        losses.two_hot_loss(out[c, n, a, g].double(), torch.tensor(target), support.float()).item() / C
                    )
    assert counts.tolist() == [n_policy, n_critic]
    policy, critic, maxq = policy_sum / n_policy / G, critic_sum / n_critic / G, maxq_sum / n_policy / G
    assert metrics["loss/policy"].item() == pytest.approx(policy, rel=1e-4)
    assert metrics["loss/critic"].item() == pytest.approx(critic, rel=1e-4)
    expected = 0.7 * policy + 1.3 * critic - config.maxq_weight * maxq
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert metrics["loss/total"].item() == loss.item()
    for name, values in sums.items():
        over = n_policy if name.startswith(OVER_POLICY) else n_critic
        assert metrics[name].tolist() == pytest.approx([value / over for value in values], rel=1e-3, abs=1e-4), name
    assert set(sums) == set(metrics) - {"loss/total", "loss/policy", "loss/critic"}
    # Targets that are where the online heads are have not drifted, however far apart the critics stand.
    fresh = OfflineRL(network, config)
    assert fresh(pack, counts, subset, ON)[1]["value/target_drift"].abs().max() < 1e-2


def test_before_the_filter_comes_on_every_action_is_cloned_and_nothing_climbed():
    """Whatever filter and MaxQ are set, the loss is that of imitation alone."""
    pack, found = random_pack(96), []
    for options, filtering in (
        ({"maxq_weight": 0.3}, 0.0),
        ({"filter": "exponential"}, 0.0),
        ({"filter": "imitation"}, 1.0),
    ):
        objective = OfflineRL(tiny_network(), ObjectiveConfig(**options))
        args = objective.counts(pack), torch.tensor([0, 1]), torch.tensor(filtering)
        loss, metrics = objective(pack, *args)
        found.append((loss.item(), metrics["filter/weight"].tolist()))
    assert found[0] == found[1] == found[2]
    assert found[0][1] == pytest.approx([1.0] * G)


def test_maxq_climbs_the_critics_and_leaves_them_alone():
    """Its gradient is that of −V/(a win) through the policy: none reaches a critic."""
    objective = OfflineRL(tiny_network(), ObjectiveConfig(maxq_weight=1.0, policy_weight=0.0, critic_weight=0.0))
    pack = random_pack(96)
    objective(pack, objective.counts(pack), torch.tensor([0, 1]), ON)[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.network.critics.parameters())
    assert any(p.grad is not None and p.grad.any() for p in objective.network.actor.parameters())


def test_unknown_words_are_drawn_in_training_alone():
    words = torch.randint(2, 50, (4000, 8))
    words[:, 0] = 0
    torch.manual_seed(0)
    masked = losses.masked_words(words, 0.25)
    changed = masked != words
    assert (masked[changed] == 1).all()
    assert not changed[:, 0].any()
    assert changed[:, 1:].float().mean().item() == pytest.approx(0.25, abs=0.01)
    objective = OfflineRL(tiny_network().eval(), ObjectiveConfig(unknown_words=0.5)).eval()
    pack = random_pack(96)
    counts = objective.counts(pack)
    once, twice = (objective(pack, counts, torch.tensor([0, 1]), ON)[0] for _ in range(2))
    assert torch.equal(once, twice)
    objective.train()
    assert not torch.equal(objective(pack, counts, torch.tensor([0, 1]), ON)[0], once)


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "bf16 autocast"])
def test_the_sign_of_the_advantage_is_that_of_fp64(autocast):
    """Law 13, on over 99.9% of turns, also where the step runs under bf16 autocast, as it does on a GPU. Values as
    trained ones lie: anywhere in the support by the state, and by the action some 10 apart."""
    torch.manual_seed(3)
    network = tiny_network()
    turns, gammas, critics, actions, bins = 4000, 4, 4, 13, network.config.value_bins
    support = value_support(network.config)
    state = torch.empty(1, turns, 1, 1, 1).uniform_(-1000, 1000)
    bump = ((support - state) / (support[1] - support[0])).square() / 8
    out = 0.3 * torch.randn(critics, turns, actions, gammas, bins) - bump
    logits, action = torch.randn(turns, gammas, actions) * 2, torch.randint(0, actions, (turns,))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = losses.advantage(network.expected_values(out), logits.softmax(-1), action)
    values = (out.double().softmax(-1) * support.double()).sum(-1).permute(1, 3, 0, 2)
    exact = values.mean(2)
    taken = exact.gather(-1, action.view(-1, 1, 1).expand(-1, gammas, 1)).squeeze(-1)
    exact = taken - (logits.double().softmax(-1) * exact).sum(-1)
    assert ((ours > 0) == (exact > 0)).double().mean() > 0.999


@pytest.mark.parametrize(
    "options",
    [{"filter": "best"}, {"target": "trunk"}, {"n_step": 0}, {"unknown_words": 1.0}, {"value_of": "mine"}],
    ids=str,
)
def test_an_objective_that_cannot_be_is_refused_by_its_key(options):
    with pytest.raises(ValueError, match=f"objective.{next(iter(options))}"):
        ObjectiveConfig(**options).check()


def test_the_behaviours_model_does_not_act():
    with pytest.raises(ValueError, match=r"objective\.value_of='behaviour': .*model\.act_gamma"):
        OfflineRL(tiny_network(act_gamma=0.9), ObjectiveConfig(value_of="behaviour"))


def test_gradients_reach_what_they_should():
    objective = OfflineRL(tiny_network(), ObjectiveConfig())
    pack = random_pack(96)
    objective(pack, objective.counts(pack), torch.tensor([0, 1]), ON)[0].backward()
    assert all(p.grad is None for p in objective.targets.parameters())
    without = [name for name, p in objective.network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_unrecorded_actions_have_no_loss():
    objective = OfflineRL(tiny_network(), ObjectiveConfig(filter="imitation"))
    pack = random_pack(96)
    pack["action_known"][:] = False
    loss, _ = objective(pack, objective.counts(pack), torch.tensor([0, 1]), ON)
    assert loss.item() == 0.0
    assert torch.isfinite(loss)


@pytest.mark.parametrize("target", ["heads", "network"])
def test_targets_multiply_in_the_precision_of_the_online_weights(target):
    """bf16 weights, as DeepSpeed holds them, without autocast; fp32 ones under autocast, as accelerate trains."""
    found = {}
    for engine in ("deepspeed", "plain"):
        objective = OfflineRL(tiny_network(), ObjectiveConfig(target=target))
        if engine == "deepspeed":
            objective.network.bfloat16()
        dtypes = found[engine] = set()
        parts = [objective.targets.actor, *([objective.targets.model] if target == "network" else [])]
        for layer in (m for part in parts for m in part.modules() if isinstance(m, torch.nn.Linear)):
            layer.register_forward_hook(lambda layer, inputs, out, dtypes=dtypes: dtypes.add(out.dtype))
        pack = random_pack()
        with torch.autocast("cpu", torch.bfloat16, enabled=engine == "plain"):
            loss, _ = objective(pack, objective.counts(pack), torch.tensor([0, 2]), ON)
        assert loss.isfinite()
        assert all(p.dtype == torch.float32 for p in objective.targets.parameters())
    assert found["deepspeed"] == found["plain"] == {torch.bfloat16}


@pytest.mark.parametrize("target", ["heads", "network"])
def test_polyak_moves_targets_in_fp32(target):
    objective = OfflineRL(tiny_network(), ObjectiveConfig(target=target))
    before = {name: p.clone() for name, p in objective.targets.named_parameters()}
    with torch.no_grad():
        for p in objective.network.parameters():
            p.add_(1.0)
    polyak_update(objective, 0.004)
    for name, p in objective.targets.named_parameters():
        assert p.dtype == torch.float32
        assert torch.allclose(p, before[name] + 0.004, atol=1e-6)


def test_derived_support_covers_the_largest_return():
    for kind, largest in (("shaped", 1000.0), ("aggressive", 2000.0)):
        low, high = derived_support(kind, 10.0)
        assert high == -low >= largest
    with pytest.raises(ValueError, match="shaped"):
        derived_support("other", 10.0)


def test_maxq_is_refused_where_a_win_is_worth_nothing(monkeypatch):
    """Divided by that nothing, every update was skipped as not finite."""
    network = tiny_network()
    OfflineRL(network, ObjectiveConfig(maxq_weight=0.5))
    kind = network.config.reward_kind
    monkeypatch.setitem(REWARDS, kind, replace(REWARDS[kind], win=0.0))
    OfflineRL(network, ObjectiveConfig())
    with pytest.raises(ValueError, match=r"objective\.maxq_weight=0\.5: .*: set it to 0"):
        OfflineRL(network, ObjectiveConfig(maxq_weight=0.5))
