"""Equal to the reference implementation on real battles: words, float32 numbers, actions, legal sets, rewards."""

import gzip
import json

import numpy as np
import pytest

from data.encode import Encoder
from data.prepare import encode_report, main
from data.replay_file import read_battle, read_lean
from data.schema import minimal_action, minimal_legal
from data.tokenizer import Tokenizer

from .shared import SHARED, shared_folder

GOLDEN = sorted((SHARED / "golden").glob("*.json.gz")) if (SHARED / "golden").is_dir() else []
REWARDS = {"shaped": "DefaultShapedReward", "aggressive": "AggressiveShapedReward", "binary": "BinaryReward"}


def test_golden_files_are_all_here():
    shared_folder("golden")
    assert len(GOLDEN) == 60


@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_equal_to_the_reference(file):
    with gzip.open(file) as source:
        golden = json.load(source)
    battle = shared_folder("battles") / golden["file"]
    spaces = [space for space in ("default", "expanded", "teampreview", "opponentmove") if space in golden]
    assert "default" in spaces
    for space in spaces:
        report = encode_report(battle, space)
        assert report["text"] == golden[space]["text"]
        assert np.array_equal(
            np.array(report["numbers"], dtype=np.float32), np.array(golden[space]["numbers"], dtype=np.float32)
        )
        assert report["actions"] == golden["actions"]
        for ours, theirs in REWARDS.items():
            expected = np.array(golden["rewards"][theirs], dtype=np.float32)
            assert np.array_equal(np.array(report["rewards"][ours], dtype=np.float32), expected)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_minimal_actions_equal_the_reference(file):
    with gzip.open(file) as source:
        golden = json.load(source)
    battle = read_lean(shared_folder("battles") / golden["file"])
    encoded = Encoder("default", Tokenizer.load()).encode(battle.states, battle.actions)
    chosen = [minimal_action(action) for action in encoded.action[:-1].tolist()]
    legal = [np.flatnonzero(row).tolist() for row in minimal_legal(encoded.legal[:-1])]
    minimal = golden["actions_minimal"]
    assert chosen == minimal["chosen"]
    assert legal == minimal["legal"]
    assert [action < 0 for action in chosen] == minimal["missing"]


def test_encode_prints_the_report(capsys):
    shared_folder("golden")
    with gzip.open(GOLDEN[0]) as source:
        battle = shared_folder("battles") / json.load(source)["file"]
    assert main(["encode", str(battle), "--space", "expanded"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(encode_report(battle, "expanded")))


def test_every_real_file_is_read_with_no_unknown_word():
    tokenizer = Tokenizer.load()
    encoder = Encoder("opponentmove", tokenizer)
    unknown = words = dropped = placeholders = 0
    files = sorted(shared_folder("battles").glob("*/*.json.lz4"))
    assert len(files) == 1101
    for file in files:
        battle = read_lean(file)
        encoded = encoder.encode(battle.states, battle.actions)
        unknown += encoded.n_unknown
        words += encoded.words.size
        dropped += encoded.dropped_tail
        placeholders += encoded.n_placeholder
    assert unknown < 1e-4 * words
    assert dropped == 5  # the next battle's first state at the end, counted by hand
    assert placeholders == 1  # an action recorded where nothing was legal


def test_rewards_keep_their_bounds_on_real_files():
    from data.reward import REWARDS as KINDS

    encoder = Encoder("default", Tokenizer.load())
    for file in sorted(shared_folder("battles").glob("*/*.json.lz4"))[::10]:
        battle = read_lean(file)
        encoded = encoder.encode(battle.states, battle.actions)
        for name, kind in KINDS.items():
            rewards = encoded.rewards[name]
            assert abs(rewards.sum()) <= kind.max_abs_return
            if len(encoded) > 2:
                assert np.abs(rewards[:-1]).max() <= kind.max_abs_step


def test_the_strict_reader_agrees_with_the_lean_one():
    encoder = Encoder("opponentmove", Tokenizer.load())
    for file in sorted(shared_folder("battles").glob("*/*.json.lz4"))[::100]:
        lean, full = read_lean(file), read_battle(file)
        a = encoder.encode(lean.states, lean.actions)
        b = encoder.encode(full.states, full.actions)
        assert np.array_equal(a.words, b.words)
        assert np.array_equal(a.numbers, b.numbers)
        assert np.array_equal(a.legal, b.legal)
        assert all(np.array_equal(a.rewards[kind], b.rewards[kind]) for kind in a.rewards)
