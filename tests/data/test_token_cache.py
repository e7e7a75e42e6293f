"""The token cache as a run reads it: equal to the raw path, and whatever of it is spoilt is named."""

import hashlib
import json
import pickle
import shutil
import tarfile
from contextlib import nullcontext
from functools import partial

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data import token_cache
from data.cache import CacheJob, make_cache
from data.cache_manifest import CACHE_VERSION
from data.dataset import BattleDataset, DataConfig, TooManyRejects
from data.encode import Encoder
from data.folders import DataError
from data.loader import BatchConfig, make_loader
from data.observation import SPACES
from data.replay_file import read_lean
from data.token_cache import TokenCache, codes_of, legal_bits
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle, write_battles
from tests.own_space import add_space, mean_hp

from .caches import TOKENIZER, assert_equal, cache_of, dataset_of, read_all, tar_of
from .shared import shared_folder


@pytest.mark.parametrize("space", SPACES)
def test_equal_to_the_raw_path_in_few_bytes(folder, tmp_path, space):
    some = Tokenizer(TOKENIZER.words[2::2])  # half of the words: the others are unknown
    some.save(tmp_path / "some.json")
    manifest = cache_of(folder, tmp_path / "c", space=space, vocabulary=str(tmp_path / "some.json"))
    cache = TokenCache(tmp_path / "c")
    encoder = Encoder(space, some)
    assert manifest["battles"] == len(cache) == 50
    files = [folder / path for path in cache.table["path"].to_pylist()]
    for i, file in enumerate(files):
        battle = read_lean(file)
        assert_equal(cache[i], encoder.encode(battle.states, battle.actions), SPACES[space])
    assert cache[0]._batch is cache[0]._batch  # a shard is opened once
    assert manifest["bytes"] / manifest["turns"] < 450  # few turns a shard here; the real files are measured below
    assert dict(manifest["rejects"]["by_field"]) == {"lz4": 1, "name": 1}
    encoded = [encoder.encode(battle.states, battle.actions) for battle in map(read_lean, files)]
    assert manifest["turns"] == sum(map(len, encoded))
    assert manifest["bytes"] == sum(file.stat().st_size for file in (tmp_path / "c").glob("shard-*.arrow"))
    assert manifest["unknown_words"] == sum(battle.n_unknown for battle in encoded) > 0
    assert [cache[i].n_unknown for i in range(50)] == [battle.n_unknown for battle in encoded]
    assert manifest["words"] == sum(battle.words.size for battle in encoded)
    assert manifest["dropped_tails"] == sum(battle.dropped_tail for battle in encoded)


def test_a_number_slot_of_ones_own_is_kept_exactly(folder, tmp_path, monkeypatch):
    add_space(monkeypatch, lambda state: mean_hp(state) / 3)
    cache_of(folder, tmp_path / "c", space="mine")
    cache, encoder = TokenCache(tmp_path / "c"), Encoder("mine", TOKENIZER)
    for i, path in enumerate(cache.table["path"].to_pylist()):
        battle = read_lean(folder / path)
        assert_equal(cache[i], encoder.encode(battle.states, battle.actions), SPACES["mine"])
    raw, cached = (dataset_of(path, tmp_path, space="mine") for path in (folder, tmp_path / "c"))
    assert raw.space.n_numbers == cached.space.n_numbers == 49
    assert codes_of("mine").hp[-1] == 48  # among hp's columns, not a mark beside the codes at each turn


@pytest.mark.parametrize("space", ["default", pytest.param("opponentmove", marks=pytest.mark.slow)])
def test_real_files_equal_in_under_350_bytes_a_turn(tmp_path, space):
    source = shared_folder("battles")
    manifest = make_cache(CacheJob(str(source), str(tmp_path / "c"), space=space), processes=2, progress=False)
    assert manifest["battles"] == 1101
    assert manifest["bytes"] / manifest["turns"] < 350
    cache, encoder = TokenCache(tmp_path / "c"), Encoder(space, TOKENIZER)
    for i, path in list(enumerate(cache.table["path"].to_pylist()))[::7]:
        battle = read_lean(source / path)
        assert_equal(cache[i], encoder.encode(battle.states, battle.actions), SPACES[space])


@pytest.mark.parametrize(
    ("space", "digest"),
    [
        ("default", "9c4d0fbb021e"),
        ("expanded", "751d1c2f341b"),
        ("teampreview", "751d1c2f341b"),
        ("opponentmove", "751d1c2f341b"),
    ],
)
def test_what_older_caches_hold_is_read_as_it_was_written(space, digest):
    """Their codes and marks are places in these tables: whoever changes one raises CACHE_VERSION."""
    codes = codes_of(space)
    kept = hashlib.sha256(codes.slots.astype("<i4").tobytes() + codes.tables.astype("<f4").tobytes())
    assert kept.hexdigest()[:12] == digest
    assert (token_cache.WON, token_cache.LOST, token_cache.NO_RESULT) == (1, 0, -1)
    assert (token_cache.FORCED_BIT, token_cache.EMPTY_CODE, CACHE_VERSION) == (15, 255, 1)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(SPACES)))
def test_any_number_survives_the_codes(data, space):
    """Whatever is on no table, as a level of 300, is kept exactly beside the codes."""
    codes = codes_of(space)
    n = data.draw(st.integers(1, 5))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    on_grid = st.sampled_from([-2.0, 0.0, 1.0, 0.5, 1 / 3, 0.85, 1.2, 100 / 255])
    flat = data.draw(st.lists(floats | on_grid, min_size=n * codes.n, max_size=n * codes.n))
    numbers = np.array(flat, dtype=np.float32).reshape(n, codes.n)
    packed, hp, (turn, slot, value) = codes.pack(numbers)
    out = np.zeros_like(numbers)
    codes.unpack(packed, hp, out)
    out[turn, slot] = value
    assert out.tobytes() == numbers.tobytes()


def test_values_on_no_table_are_read_back_in_any_window(tmp_path):
    battle = make_battle(5, "gen1ou", Style(max_turns=20, noise=0.0))
    for turn in (0, 3, 7):
        battle.states[turn]["player_active_pokemon"]["lvl"] = 300
        battle.states[turn]["opponent_active_pokemon"]["base_hp"] = 999
    write_battle(tmp_path / "b", make_battle(6, "gen1ou", Style(max_turns=9)))
    path = write_battle(tmp_path / "b", battle)
    cache_of(tmp_path / "b", tmp_path / "c")
    cache = TokenCache(tmp_path / "c")
    place = cache.table["path"].to_pylist().index(f"gen1ou/{path.name}")
    encoded = Encoder("default", TOKENIZER).encode(battle.states, battle.actions)
    space = SPACES["default"]
    for start, stop in ((0, len(encoded)), (1, 5), (3, 4), (4, 7), (7, 9)):
        n = stop - start
        out = np.zeros((n, space.n_words), np.int32), np.zeros((n, space.n_numbers), np.float32)
        cache[place].fill(start, stop, *out, np.zeros((n, 13), bool), np.zeros(n, bool))
        assert np.array_equal(out[1], encoded.numbers[start:stop])


def test_legal_bits():
    rng = np.random.default_rng(0)
    legal, forced = rng.random((100, 13)) < 0.5, rng.random(100) < 0.5
    bits = legal_bits(legal, forced)
    assert bits.dtype == np.uint16
    assert all([(b >> i) & 1 for i in range(13)] == row.tolist() for b, row in zip(bits.tolist(), legal, strict=True))
    assert np.array_equal(bits >> 15, forced)


@pytest.mark.parametrize("plan", ["packed", "battles"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_packs_raw_and_cached(folder, tmp_path, plan, workers):
    cache_of(folder, tmp_path / "c")
    packs = []
    for path in (folder, tmp_path / "c"):
        config = DataConfig(
            path=str(path), cache_dir=str(tmp_path / "i"), max_turns=24, workers=workers, max_reject_share=0.5
        )
        data = BattleDataset(config, TOKENIZER)
        packs.append(list(make_loader(data, BatchConfig(battles=8, turns=256, plan=plan), seed=3, max_steps=5)))
    for raw, cached in zip(*packs, strict=True):
        assert raw.keys() == cached.keys()
        for key in raw:
            if key != "windows":  # places in the data set: the raw one counts the rejected file too
                assert torch.equal(raw[key], cached[key]), key


def test_anyone_can_open_it_with_datasets(folder, tmp_path):
    manifest = cache_of(folder, tmp_path / "c")
    shards = datasets.load_dataset(
        "arrow", data_files=str(tmp_path / "c" / "shard-*.arrow"), split="train", cache_dir=str(tmp_path / "hf")
    )
    from_disk = datasets.load_from_disk(str(tmp_path / "c"))
    assert len(shards) == len(from_disk) == manifest["battles"]
    row = from_disk[0]
    assert len(row["words"]) == row["turns"] == len(row["action"]) == len(row["reward_shaped"])
    assert len(row["words"][0]) == SPACES["default"].n_words
    assert row["format"] == "gen1ou"
    won = {path: outcome == 1 for path, outcome in zip(from_disk["path"], from_disk["outcome"], strict=True)}
    cache = TokenCache(tmp_path / "c")
    assert won == {path: cache[i].won for i, path in enumerate(cache.table["path"].to_pylist())}


def test_what_datasets_made_of_a_cache_is_not_taken_for_what_it_makes_of_a_grown_one(tmp_path):
    """It keeps the results of `map` in the folder, by the data set's fingerprint."""
    names = []
    for count in (4, 8, 8):
        write_battles(tmp_path / "b", count, formats=("gen2ou",), style=Style(max_turns=6))
        cache_of(tmp_path / "b", tmp_path / "c", unit=2)
        opened = datasets.load_from_disk(str(tmp_path / "c"))
        assert len(opened.map(lambda row: {"length": len(row["words"])}, load_from_cache_file=True)) == count
        names.append(opened._fingerprint)
    assert names[0] != names[1] == names[2]


def test_a_cache_goes_to_a_worker_as_its_path(folder, tmp_path):
    cache_of(folder, tmp_path / "c")
    cache = TokenCache(tmp_path / "c")
    words = cache[7].words
    sent = pickle.dumps(cache)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent)[7].words, words)


def test_a_report_and_teams_from_a_cache_as_from_files(folder, tmp_path):
    cache_of(folder, tmp_path / "c")
    raw, cached = (
        BattleDataset(DataConfig(path=str(path), cache_dir=str(tmp_path / "i"), max_reject_share=0.5), TOKENIZER)
        for path in (folder, tmp_path / "c")
    )
    assert raw.teams() == cached.teams()
    assert len(raw.teams()) > 10
    a, b = raw.inspect(), cached.inspect()
    for key in ("files", "turns", "unknown_share", "blank_share", "missing_share"):
        assert getattr(b, key) == (pytest.approx(getattr(a, key)) if key != "files" else b.files)
    assert sum(b.files.values()) == sum(a.files.values()) - 1


def test_a_spoilt_shard_is_named(folder, tmp_path):
    cache_of(folder, tmp_path / "c")
    for shard in (tmp_path / "c").glob("shard-gen1ou-*"):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="shard-gen1ou"):
        TokenCache(tmp_path / "c")[0]
    loader = make_loader(dataset_of(tmp_path / "c", tmp_path, workers=1), BatchConfig(battles=60), seed=0, max_steps=2)
    with pytest.raises(DataError, match=r"^\S+shard-gen1ou\S+: has 100 bytes, its manifest says"):  # no traceback in it
        list(loader)


@pytest.mark.parametrize("name", ["index.bin", "manifest.json", "shard-gen1ou-00000.arrow", "vocabulary.json"])
def test_whatever_of_a_cache_is_gone_or_spoilt_is_named(folder, tmp_path, name):
    cache_of(folder, tmp_path / "c")
    file = tmp_path / "c" / name
    content = file.read_bytes()
    # What Arrow says of the second is no OSError.
    spoilt = b"\xff" * len(content), b"\xff\xff\xff\x7f" + content[4:]
    damages = [*(partial(file.write_bytes, other) for other in spoilt), file.unlink, file.mkdir]
    if name.startswith("shard"):
        damages.insert(0, lambda: file.write_bytes(content.replace(b"words", b"wordz")))  # its schema lacks a column
    for damage in damages:
        damage()
        with pytest.raises(ValueError, match=rf"{file.parent}.*(cannot be read|holds no manifest|has \d+ bytes)"):
            TokenCache(tmp_path / "c")[0]


def test_a_shard_whose_end_a_stopped_copy_left_empty_is_named(tmp_path, monkeypatch):
    """Its size was set before its content came."""
    monkeypatch.setattr("data.cache_shard.BATCH_BATTLES", 2)
    write_battles(tmp_path / "b", 6, formats=("gen1ou",), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c", unit=6)
    (shard,) = (tmp_path / "c").glob("shard-*")
    with open(shard, "r+b") as file:
        stream = pa.ipc.open_stream(file)
        for _ in range(2):
            stream.read_next_batch()
        file.write(bytes(shard.stat().st_size - file.tell()))
    with pytest.raises(DataError, match=r"shard-.*: holds 4 battles, its manifest says 6; copy the whole cache"):
        TokenCache(tmp_path / "c")[5]


def test_a_word_that_is_none_never_reaches_the_network(folder, tmp_path):
    """A bit flipped on the disk can make an id that the embedding has no row for (law 3)."""
    cache_of(folder, tmp_path / "c")
    cache = TokenCache(tmp_path / "c")
    words = cache[0].words
    shard = tmp_path / "c" / cache.manifest["shards"][int(cache.table["shard"][0].as_py())]["file"]
    content = bytearray(shard.read_bytes())
    at = content.find(words.tobytes())
    assert at > 0
    content[at + 1] |= 0x80  # of the first word's two bytes, the higher
    shard.write_bytes(content)
    battle, space = TokenCache(tmp_path / "c")[0], SPACES["default"]
    assert battle.words[0, 0] >= 0x8000
    with pytest.raises(DataError, match=rf"{shard.name}: is spoilt"):
        read_all(battle, space)
    for word in (len(TOKENIZER) - 1, len(TOKENIZER)):  # the last that there is, and the first that is none
        content[at : at + 2] = word.to_bytes(2, "little")
        shard.write_bytes(content)
        with pytest.raises(DataError, match="is spoilt") if word == len(TOKENIZER) else nullcontext():
            read_all(TokenCache(tmp_path / "c")[0], space)
    shard.write_bytes(content + b"more")
    with pytest.raises(DataError, match="its manifest says"):
        TokenCache(tmp_path / "c")[0]


@pytest.mark.parametrize("kind", ["folder", "archives"])
def test_files_of_other_formats_that_a_cache_rejected_are_no_matter(tmp_path, kind):
    """As with raw files: they stopped runs of a sound format, and hid what a small one had lost among a large one's."""
    write_battles(tmp_path / "b", 40, seed=5, style=Style(max_turns=6))
    for file in sorted((tmp_path / "b" / "gen9ou").iterdir())[:4]:
        file.write_bytes(b"spoilt")
    source = tmp_path / "b"
    if kind == "archives":
        source = tmp_path / "a"
        source.mkdir()
        for name in ("gen1ou", "gen9ou"):
            tar_of(tmp_path / "b", source / f"{name}.tar.gz", name)
        with tarfile.open(source / "gen9ou.tar", "w") as tar:  # its reason is told of the member
            tar.add(tmp_path / "b" / "gen9ou", arcname="gen9ou")
            link = tarfile.TarInfo("gen9ou/link.json.lz4")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        (source / "gen9ou.tar.gz").unlink()
    cache_of(source, tmp_path / "c")
    count = 4 + (kind == "archives")
    share = {"max_reject_share": 0.0}
    assert len(dataset_of(tmp_path / "c", tmp_path, formats=["gen1ou"], **share)) == 8
    assert not dataset_of(tmp_path / "c", tmp_path, formats=["gen1ou"], **share).ledger.rejects
    with pytest.raises(TooManyRejects, match=f"{count} of {8 + count - 4} files"):
        dataset_of(tmp_path / "c", tmp_path, formats=["gen9ou"], max_reject_share=0.3)
    dataset_of(tmp_path / "c", tmp_path, max_reject_share=0.3)


def test_rejects_that_a_cache_does_not_name_count_too(tmp_path, monkeypatch):
    from data import cache_end as module

    write_battles(tmp_path / "b", 40, seed=302)
    for number in range(30):
        (tmp_path / "b" / "gen1ou" / f"x{number}_1500_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    monkeypatch.setattr(module, "REJECTS_KEPT", 2)
    assert cache_of(tmp_path / "b", tmp_path / "c")["rejects"]["count"] >= 30
    with pytest.raises(TooManyRejects):
        dataset_of(tmp_path / "c", tmp_path, max_reject_share=0.1)
    data = dataset_of(tmp_path / "c", tmp_path, max_reject_share=0.5)
    assert (len(data), len(data.ledger.rejects)) == (40, 2)
    assert data.inspect().rejected == 30  # what a run and its model's card tell


def test_words_other_than_those_of_its_tokens_are_found_and_mended(folder, tmp_path, capsys):
    """With two of them changed for each other every battle reads as well as before, and means something else."""
    from data.prepare import main

    cache_of(folder, tmp_path / "c")
    file = tmp_path / "c" / "vocabulary.json"
    first, second, *rest = TOKENIZER.words[2:]
    Tokenizer([second, first, *rest]).save(file)
    assert main(["verify", str(tmp_path / "c")]) == 1
    assert f"{file}: vocabulary: is " in capsys.readouterr().out
    for spoil in (lambda: None, file.unlink):
        spoil()
        cache_of(folder, tmp_path / "c")
        assert main(["verify", str(tmp_path / "c")]) == 0


def test_verify_checks_a_caches_hashes(folder, tmp_path, capsys):
    from data.prepare import main

    cache_of(folder, tmp_path / "c")
    assert main(["verify", str(tmp_path / "c")]) == 0
    for file in (next((tmp_path / "c").glob("shard-gen2ou-*")), tmp_path / "c" / "index.bin"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert main(["verify", str(tmp_path / "c")]) == 1
        assert f"{file}: sha256" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    del manifest["index"]  # as caches had none before
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    assert main(["verify", str(tmp_path / "c")]) == 1
    assert "token cache, 1 bad files" in capsys.readouterr().out
    next((tmp_path / "c").glob("shard-gen1ou-*")).unlink()
    assert main(["verify", str(tmp_path / "c")]) == 1
    said = capsys.readouterr().out
    assert ".arrow: file: cannot be read (No such file or directory)" in said
    assert "token cache, 2 bad files" in said


def test_half_a_copy_of_a_cache_that_has_grown_is_refused(tmp_path):
    """Its index names places in shards that its manifest counts otherwise."""
    write_battles(tmp_path / "b", 4, formats=("gen2ou",), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c")
    shutil.copytree(tmp_path / "c", tmp_path / "copy")
    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c")
    shutil.copy(tmp_path / "c" / "index.bin", tmp_path / "copy")
    with pytest.raises(DataError, match="holds 8 battles, its manifest says 4; copy the whole cache"):
        TokenCache(tmp_path / "copy")
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    (tmp_path / "c" / "manifest.json").write_text(json.dumps({**manifest, "battles": 9}))
    with pytest.raises(DataError, match="holds 8 battles, its manifest says 9"):
        TokenCache(tmp_path / "c")


def test_a_cache_moves_with_its_folder(folder, tmp_path):
    cache_of(folder, tmp_path / "c")
    shutil.move(tmp_path / "c", tmp_path / "d")
    data = BattleDataset(
        DataConfig(path=str(tmp_path / "d"), heldout_share=0.0, workers=0, max_reject_share=0.5), TOKENIZER
    )
    assert len(list(make_loader(data, BatchConfig(battles=4), seed=0, max_steps=2))) == 2
