"""The network: sizes, causality, packing, cached play, dtypes, reload elsewhere."""

import copy
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn

from data.observation import SPACES
from model import attention
from model.modeling_turnwise import PRESETS, TurnwiseConfig, TurnwiseForOfflineRL, preset
from model.turn_encoder import ENCODERS, History, RMSNorm, ZeroLinear
from tests.packs import assert_close, inputs_of, outputs, random_pack, tiny_network


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("tiny", 0.9e6, 1.4e6), ("small", 13e6, 17e6), ("medium", 46e6, 54e6), ("base", 190e6, 210e6)],
)
@pytest.mark.parametrize("encoder", ["blocks", "transformer"])
def test_presets_have_their_sizes(name, low, high, encoder):
    config = TurnwiseConfig(**preset(name), turn_encoder=encoder, vocab_size=6000, layout=SPACES["default"].layout)
    with torch.device("meta"):
        parts = TurnwiseForOfflineRL(config).count_parameters()
    # The transformer encoder, kept for comparison, is a few percent smaller than the default one.
    assert 0.95 * low <= parts["total"] <= high if encoder == "transformer" else low <= parts["total"] <= high


@pytest.mark.parametrize("encoder", ["blocks", "transformer"])
@pytest.mark.parametrize("space", list(SPACES))
def test_every_space_and_encoder_runs_and_is_finite(encoder, space):
    network = tiny_network(space=space, turn_encoder=encoder)
    logits, q = outputs(network, random_pack(128, space=space))
    assert logits.shape == (128, 4, 13)
    assert q.shape == (128, 4, 4, 13)
    assert torch.isfinite(q).all()
    assert torch.isfinite(logits.softmax(-1)).all()


class BagOfWords(nn.Module):
    """An encoder of one's own, as docs/model_and_objective.md has it."""

    def __init__(self, config):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.entity_width)
        self.numbers = nn.Linear(config.n_numbers, config.entity_width)
        self.history = History(config, config.entity_width)
        self.join = nn.Linear(config.entity_width, config.hidden_size)
        self.rows = [row for group in config.layout["groups"] for row in group["words"]]

    def forward(self, words, numbers, *history):
        text = self.words(words)
        turn = self.join(text.mean(1) + self.numbers(numbers) + self.history(*history))
        return turn, torch.stack([text[:, row].mean(1) for row in self.rows], dim=1)


def test_an_encoder_of_ones_own_is_a_class_and_an_entry(monkeypatch, tmp_path):
    monkeypatch.setitem(ENCODERS, "bag", BagOfWords)
    network = tiny_network(turn_encoder="bag")
    assert isinstance(network.model.turn_encoder, BagOfWords)
    pack = random_pack(128)
    network(**inputs_of(pack)).hidden.sum().backward()
    assert network.model.turn_encoder.words.weight.grad.any()
    network.save_pretrained(tmp_path)
    again = TurnwiseForOfflineRL.from_pretrained(tmp_path)
    assert_close(outputs(again, pack), outputs(network, pack))


@pytest.mark.parametrize("encoder", ["blocks", "transformer"])
def test_fresh_weights_are_drawn_as_stated(encoder):
    """Variance by fan-in, the residual branches' ends smaller by the depth, critics at the middle of their support."""
    network = TurnwiseForOfflineRL(tiny_network(turn_encoder=encoder, value_head="scalar", num_layers=2).config).eval()
    ends = {f"model.trunk.layers.{i}.{end}" for i in (0, 1) for end in ("attention.proj", "mlp.down")}
    for name, part in network.named_modules():
        if isinstance(part, ZeroLinear):
            assert not part.weight.any(), name
        elif isinstance(part, torch.nn.Linear):
            scale = 0.5 if name in ends else 1.0  # one over the root of twice the layers
            assert part.weight.std().item() == pytest.approx(scale * part.in_features**-0.5, rel=0.3), name
            assert part.bias is None or not part.bias.any(), name
        elif isinstance(part, torch.nn.Embedding):
            assert part.weight.std().item() == pytest.approx(1.0, rel=0.1), name
    slots = [p for name, p in network.named_parameters() if name.split(".")[-1] in ("slot", "action", "scratch")]
    assert len(slots) > 2
    for p in slots:
        assert p.std().item() == pytest.approx(network.config.initializer_range, rel=0.3)
    q = outputs(network, random_pack(16, lengths=[16]))[1]
    assert not q.any()
    assert network.popart.std().tolist() == [network.config.value_max / 4] * 4


@pytest.mark.parametrize("encoder", ["blocks", "transformer"])
def test_an_untrained_encoder_tells_words_by_their_places(encoder):
    """A word's meaning is its slot: the active Pokémon's move or a benched one's. Words in other slots must be nearly
    as much of a change as other words; with small positions they were 3% of it, and learning stood still for long."""
    network, pack = tiny_network(turn_encoder=encoder).eval(), random_pack(256)
    rest = [pack[name] for name in ("numbers", "prev_action", "prev_action_known", "prev_reward")]
    words, generator = pack["words"], torch.Generator().manual_seed(0)
    moved = words[:, torch.randperm(words.shape[1], generator=generator)]
    other = words[torch.randperm(words.shape[0], generator=generator)]
    with torch.no_grad():
        turn, in_other_slots, of_others = (network.model.turn_encoder(w, *rest)[0] for w in (words, moved, other))
    assert (turn - in_other_slots).norm() > 0.5 * (turn - of_others).norm()


def test_a_later_turn_changes_no_earlier_output():
    network, pack = tiny_network(), random_pack(128, lengths=[60, 68])
    before = outputs(network, pack)
    for turn in (31, 90):
        changed = {key: value.clone() for key, value in pack.items()}
        changed["words"][turn] = 5
        changed["numbers"][turn] += 1.0
        changed["prev_reward"][turn] += 3.0
        after = outputs(network, changed)
        assert_close([x[:turn] for x in after], [x[:turn] for x in before])
        assert not torch.allclose(after[1][turn], before[1][turn])


def test_other_battles_in_the_pack_change_nothing():
    network = tiny_network()
    alone = random_pack(70, lengths=[70], seed=3)
    others = random_pack(150, lengths=[100, 50], seed=4)
    packed = random_pack(220, lengths=[100, 70, 50], seed=5)
    for key in inputs_of(alone):
        if key not in ("segment", "cu_seqlens", "position"):
            packed[key] = torch.cat([others[key][:100], alone[key], others[key][100:]])
    for ours, theirs in zip(outputs(network, packed), outputs(network, alone), strict=True):
        assert_close([ours[100:170]], [theirs])


def test_norms_are_computed_in_fp32_whatever_comes_in():
    torch.manual_seed(0)
    norm = RMSNorm(64)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(50, 64).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


def test_critics_asked_for_a_part_give_that_part_of_the_whole():
    """The recorded action's values, which learn, and those of the two critics that make a target."""
    network = tiny_network()
    with torch.no_grad():
        network.critics.features.action.normal_()
        hidden, entities = network.features(random_pack(64))
        whole = network.critics(hidden, entities)
        action, subset = torch.randint(0, 13, (64,)), torch.tensor([3, 1])
        taken = whole[:, torch.arange(64), action].unsqueeze(2)
        assert_close([network.critics(hidden, entities, action)], [taken])
        assert_close([network.critics(hidden, entities, subset=subset)], [whole[subset]])
        assert_close([network.critics(hidden, entities, action, subset)], [taken[subset]])


def test_dropout_lies_on_both_branches_of_a_layer():
    """Where all of either is dropped, the stream passes as it came."""
    trunk, x = tiny_network(num_layers=2, dropout=0.1).model.trunk.train(), torch.randn(5, 128)
    segment, offsets = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 5], dtype=torch.int32)
    layout = attention.prepare(segment, offsets, 5, "eager")
    for layer in trunk.layers:
        assert layer.dropout.p == 0.1
        layer.dropout.p = 1.0
    assert torch.equal(trunk(x, torch.arange(5), layout), trunk.norm(x))


def test_cached_play_equals_the_full_forward():
    network, pack = tiny_network(), random_pack(100, lengths=[60, 40])
    logits, q = outputs(network, pack)
    cache = network.new_cache(3)
    keys = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward", "legal")
    lanes = [(2, range(60), 0), (0, range(60, 100), 7)]  # lane, rows of its window, when it begins to play
    played = torch.zeros_like(q)
    played_logits = torch.zeros_like(logits)
    for turn in range(60):
        live = [(lane, rows[turn - begun]) for lane, rows, begun in lanes if begun <= turn < begun + len(rows)]
        rows = torch.tensor([row for _, row in live])
        out = network.step(
            {k: pack[k][rows].unsqueeze(1) for k in keys}, cache, torch.tensor([lane for lane, _ in live])
        )
        played[rows], played_logits[rows] = out.q_values, out.logits
    assert_close([played_logits, played], [logits, q])


def test_a_prefill_equals_single_steps_and_a_full_window_is_refused():
    network, pack = tiny_network(max_turns=16), random_pack(16, lengths=[16])
    keys = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward", "legal")
    _, q = outputs(network, pack)
    cache, lane = network.new_cache(1), torch.tensor([0])
    first = network.step({k: pack[k][:10].unsqueeze(0) for k in keys}, cache, lane)
    second = network.step({k: pack[k][10:].unsqueeze(0) for k in keys}, cache, lane)
    assert_close([torch.cat([first.q_values, second.q_values])], [q])
    with pytest.raises(ValueError, match="slide the window"):
        network.step({k: pack[k][:1].unsqueeze(0) for k in keys}, cache, lane)


def test_illegal_actions_have_no_probability_and_an_empty_set_stays_finite():
    pack = random_pack(64)
    pack["legal"][5] = False
    logits, q = outputs(tiny_network(), pack)
    probs = logits.softmax(-1)
    rows = pack["legal"].any(-1)
    assert probs[rows].masked_select(~pack["legal"][rows].unsqueeze(1).expand(-1, 4, -1)).max() == 0
    assert torch.isfinite(probs).all()
    assert torch.isfinite(q).all()
    # Where nothing is legal the policy is what it is where everything is.
    pack["legal"][5] = True
    assert torch.equal(outputs(tiny_network(), pack)[0][5], logits[5])


def test_an_unrevealed_previous_action_differs_from_every_known_one():
    network, pack = tiny_network(), random_pack(64, lengths=[64])
    pack["prev_action_known"][:] = True
    seen = []
    for action in range(13):
        pack["prev_action"][10] = action
        seen.append(outputs(network, pack)[1][10].clone())
    pack["prev_action_known"][10] = False
    unrevealed = outputs(network, pack)[1][10]
    assert all(not torch.allclose(unrevealed, known) for known in seen)


def test_bf16_is_finite_and_near_fp32():
    network, pack = tiny_network(), random_pack(64)
    logits, q = outputs(network, pack)
    with torch.autocast("cpu", torch.bfloat16):
        half_logits, half_q = outputs(network, pack)
    assert torch.isfinite(half_q).all()
    legal = pack["legal"].unsqueeze(1).expand_as(logits)
    assert (half_logits - logits)[legal].abs().max() < 0.1 * logits[legal].abs().max()
    assert (half_q - q).abs().max() < 0.1 * q.abs().max()


def test_values_are_multiplied_outside_autocast(monkeypatch):
    """That of CUDA would round a won battle's thousand to bf16; a CPU's leaves this product as it is."""
    network, real, seen = tiny_network(), torch.mv, []
    monkeypatch.setattr(torch, "mv", lambda *of: seen.append(torch.is_autocast_enabled("cpu")) or real(*of))
    with torch.autocast("cpu", torch.bfloat16):
        assert outputs(network, random_pack(16, lengths=[16]))[1].dtype == torch.float32
    assert seen == [False]


@pytest.mark.parametrize("encoder", ["blocks", "transformer"])
def test_gradient_checkpointing_changes_no_gradient(encoder):
    network, pack = tiny_network(turn_encoder=encoder), random_pack(64)
    gradients, calls = [], Counter()
    layered = [network.model.trunk, *([network.model.turn_encoder] if encoder == "transformer" else [])]
    for i, part in enumerate(layered):
        part.layers[0].register_forward_pre_hook(lambda *_, i=i: calls.update([i]))
    for on in (False, True):
        network.zero_grad()
        calls.clear()
        if on:
            network.gradient_checkpointing_on()
        network.train()(**inputs_of(pack)).q_values.square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        assert calls == dict.fromkeys(range(len(layered)), 1 + on)  # once more on the way back
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_forward_changes_no_input():
    pack = random_pack(64)
    before = {key: value.clone() for key, value in pack.items()}
    outputs(tiny_network(), pack)
    assert all(torch.equal(pack[key], before[key]) for key in pack)


def test_save_and_load_give_equal_outputs(tmp_path):
    network, pack = tiny_network(), random_pack(64)
    network.save_pretrained(tmp_path)
    again = TurnwiseForOfflineRL.from_pretrained(tmp_path)
    for a, b in zip(outputs(network, pack), outputs(again, pack), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow  # quick: the same by its name on the Hub, tests/trainer/test_hub.py
def test_auto_model_loads_remote_code_without_the_repository(tmp_path):
    network, pack = tiny_network(), random_pack(64)
    network.save_pretrained(tmp_path / "saved")
    torch.save((inputs_of(pack), outputs(network, pack)), tmp_path / "expected.pt")
    script = (
        "import sys, torch; from transformers import AutoModel; import importlib.util as u;"
        "assert u.find_spec('model') is None and u.find_spec('data') is None;"
        "inputs, expected = torch.load('expected.pt');"
        "m = AutoModel.from_pretrained('saved', trust_remote_code=True).eval();"
        "out = m(**inputs); assert type(m).__name__ == 'TurnwiseForOfflineRL';"
        "assert torch.equal(out.logits, expected[0]) and torch.equal(out.q_values, expected[1]); print('equal')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={
            "PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),  # sums of several threads may differ in their last bit
        },
    )  # fmt: skip
    assert "equal" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"num_heads": 3}, "num_heads"), ({"hidden_size": 100, "num_heads": 4}, "heads 25 wide"),
        ({"turn_encoder": "rnn"}, "turn_encoder"), ({"value_head": "x"}, "value_head"),
        ({"layout": None}, "layout"), ({"act_gamma": 0.5}, "act_gamma"), ({"value_min": 2000.0}, "value_min"),
        ({"value_spacing": "log"}, "value_spacing"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        tiny_network(**change)


def test_a_layout_that_leaves_an_action_without_an_entity_is_refused():
    layout = copy.deepcopy(SPACES["default"].layout)
    for group in layout["groups"]:
        group["actions"] = [[a for a in ids if a != 11] for ids in group["actions"] or []]
    with pytest.raises(ValueError, match=r"names no entity for actions \[11\]"):
        tiny_network(layout=layout)


def test_presets_are_refused_by_name():
    assert set(PRESETS) == {"tiny", "small", "medium", "base"}
    with pytest.raises(ValueError, match="tiny, small, medium, base"):
        preset("huge")
