"""Mutated files and names: nothing crashes, hangs or grows; every reject carries a field and a reason."""

import json
import random
import resource
import time

import lz4.frame
import pytest

from data.encode import Encoder
from data.replay_file import BadBattleFile, parse_name, read_battle
from data.sources import encode_file
from data.tokenizer import Tokenizer
from data.verify import verify_file
from tests.battle_files import Style, make_battle

CAP = 8 << 20
HOSTILE = (
    b"NaN", b"-Infinity", b"1e999", b"-1", b"1" * 400, b"1.5", b"null", b"true", b'""', b'"\xff\xfe"', b'"\\ud800"',
    b'"a b c"', b'"' + b"x" * 100_000 + b'"', b"[]", b"{}", b"[" * 5_000 + b"]" * 5_000,
    b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    b'"<pad>"', b"9223372036854775808", b"0", b"100000",
)  # fmt: skip


def seeds_of(n):
    out = []
    for seed in range(n):
        battle = make_battle(seed, style=Style(max_turns=8))
        out.append((battle.file_name, battle.json_bytes()))
    return out


def flip_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def truncate(rng, data):
    return data[: rng.randrange(len(data))]


def swap(rng, data):
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    c = min(len(data), b + rng.randrange(1, 200))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def splice(rng, data):
    a = rng.randrange(len(data))
    return data[:a] + rng.choice((b"\0" * 40, b"\xff" * 8, data[:100], rng.randbytes(30))) + data[a:]


def huge_header(rng, data):
    """A frame header that claims any block size and content size."""
    return data[:4] + rng.randbytes(rng.randrange(1, 12)) + data[4 + rng.randrange(0, 12) :]


def hostile_value(rng, text):
    """One value of the JSON replaced by something else."""
    places = [i for i in range(len(text)) if text[i] == ord(":")]
    at = rng.choice(places) + 1
    end = at
    while end < len(text) and text[end] not in b",}]":
        end += 1
    return text[:at] + rng.choice(HOSTILE) + text[end:]


def hostile_key(rng, text):
    """One key misspelt, or doubled."""
    places = [i for i in range(len(text)) if text[i : i + 2] == b'":']
    at = rng.choice(places)
    return text[:at] + rng.choice((b"x", b"\\u0000", b"")) + text[at + rng.randrange(2) :]


def drop_states(rng, text):
    battle = json.loads(text)
    key = rng.choice(("states", "actions"))
    del battle[key][rng.randrange(len(battle[key])) :]
    return json.dumps(battle).encode()


def odd_actions(rng, text):
    battle = json.loads(text)
    battle["actions"][rng.randrange(len(battle["actions"]))] = rng.choice((13, -2, 12, 10**30, 1.5, None, "0", True))
    return json.dumps(battle).encode()


def bomb(rng, text):
    return text + b" " * rng.choice((CAP, 3 * CAP))


ON_BYTES = (flip_bytes, truncate, swap, splice, huge_header)
ON_JSON = (
    flip_bytes,
    truncate,
    swap,
    splice,
    hostile_value,
    hostile_value,
    hostile_key,
    drop_states,
    odd_actions,
    bomb,
)


def mutated_name(rng, name):
    kind = rng.randrange(6)
    if kind == 0:
        parts = name.split("_")
        del parts[rng.randrange(len(parts))]
        return "_".join(parts)
    if kind == 1:
        at = rng.randrange(len(name))
        return name[:at] + rng.choice(("_", "é", " ", "\n", "..", "\u2028", "x" * 90)) + name[at:]
    if kind == 2:
        return name[: rng.randrange(1, len(name))] + ".json.lz4"
    return name


def fuzz(folder, count, seed):
    """Write, read and check `count` mutated files; returns how many were refused, and the refusals' fields."""
    rng = random.Random(seed)
    originals = seeds_of(24)
    encoder = Encoder("opponentmove", Tokenizer.load())
    refused, mute, fields, slowest = 0, 0, set(), 0.0
    folder.mkdir(exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        name, text = rng.choice(originals)
        if rng.random() < 0.6:
            data = lz4.frame.compress(rng.choice(ON_JSON)(rng, text))
        else:
            data = rng.choice(ON_BYTES)(rng, lz4.frame.compress(text))
        path = folder / mutated_name(rng, name).replace("/", "")[:200]
        path.write_bytes(data)
        started = time.perf_counter()
        try:
            parse_name(path)
            encode_file(str(path), encoder, CAP)
        except BadBattleFile as error:
            refused += 1
            fields.add(error.field.split("[")[0].split(".")[0])
            told = error.path == str(path) and error.field and error.reason and error.mend
            mute += not told
        if rng.random() < 0.1:
            try:
                read_battle(path, CAP)
            except BadBattleFile as error:
                mute += not error.reason
            finding = verify_file(path, CAP)
            mute += finding is not None and not (finding.field and finding.reason)
        slowest = max(slowest, time.perf_counter() - started)
        path.unlink()
    assert mute == 0, f"{mute} refusals lack a field, a reason or a mend"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return refused, fields, slowest, grown


def check(folder, count, seed):
    refused, fields, slowest, grown = fuzz(folder, count, seed)
    assert 0.5 * count < refused < count
    assert {"lz4", "json", "name", "states", "actions", "size"} <= fields
    assert slowest < 5.0
    # What a reader may hold at once: the file, its text up to the cap, what becomes of it, and the caches.
    assert grown < 12 * CAP


def test_mutated_files(tmp_path):
    check(tmp_path / "gen1ou", 1_500, seed=1)


@pytest.mark.slow
def test_twenty_thousand_mutated_files(tmp_path):
    check(tmp_path / "gen1ou", 20_000, seed=2)
