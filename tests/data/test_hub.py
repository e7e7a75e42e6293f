"""Download and push by the real client against a local stand-in for the Hub."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import lz4.frame
import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import filter_repo_objects

from data import hub as module
from data.cache import CacheJob, make_cache
from data.folders import DOWNLOADS, DataError, download_note
from data.hub import _battle_files, _pack, battles_card, choose_files, licence_of
from data.replay_file import read_battle
from tests.battle_files import Style, make_battle, write_battles

from .caches import dataset_of
from .hub_server import StandInHub

REPLAYS = "jakegrigsby/metamon-parsed-replays"
PILE = "jakegrigsby/metamon-parsed-pile"
TEAMS = "jakegrigsby/metamon-teams"


def tar(name, files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for file, content in files.items():
            info = tarfile.TarInfo(f"{name}/{file}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def hub():
    battles = {}
    for name in ("gen1ou", "gen9ou"):
        made = [make_battle(seed, name, Style(max_turns=8)) for seed in range(4)]
        battles[name] = {battle.file_name: lz4.frame.compress(battle.json_bytes()) for battle in made}
    stand_in = StandInHub(
        {
            REPLAYS: {f"{name}.tar.gz": tar(name, files) for name, files in battles.items()} | {"README.md": b"hi"},
            PILE: {"pac-base/gen1ou.tar.lz4": lz4.frame.compress(tar("gen1ou", battles["gen1ou"], "w"))},
            TEAMS: {"competitive/gen1ou.tar.gz": tar("gen1ou", {"a.gen1ou_team": b"Snorlax", "b.txt": b""})},
        }
    )
    yield stand_in
    stand_in.close()


def prepare(hub, tmp_path, *arguments):
    """The command in a process of its own: the client reads HF_ENDPOINT when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_stand_in",
        "TURNWISE_CACHE": str(tmp_path / "i"),
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "data.prepare", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_replays_are_fetched_unpacked_and_not_fetched_twice(hub, tmp_path):
    arguments = (
        "download",
        "--repo",
        REPLAYS,
        "--revision",
        "v4",
        "--formats",
        "gen1ou",
        "--to",
        tmp_path / "d",
        "--unpack",
    )
    done = prepare(hub, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "CC-BY-NC-4.0" in done.stdout
    files = sorted((tmp_path / "d" / "gen1ou").iterdir())
    assert len(files) == 4
    assert len(read_battle(files[0]).states) >= 2
    assert not (tmp_path / "d" / "gen9ou.tar.gz").exists()
    # One revision from the list of files to the files themselves.
    assert all("/v4" in request for request in hub.requests if REPLAYS in request), hub.requests
    before = len([r for r in hub.requests if r.startswith("GET /datasets")])
    assert "is read, and not" not in prepare(hub, tmp_path, *arguments).stderr
    # Another revision as an archive alone would lie there, and the files of this one be read.
    again = prepare(hub, tmp_path, *arguments[:-1])
    assert again.returncode == 0
    assert f"{tmp_path / 'd' / 'gen1ou'}: is read, and not gen1ou.tar.gz beside it: give --unpack" in again.stderr
    assert len([r for r in hub.requests if r.startswith("GET /datasets")]) == before


@pytest.mark.parametrize("unpack", [[], ["--unpack"]])
def test_what_was_downloaded_is_read_and_its_licence_found(hub, tmp_path, unpack):
    """As the README says: download, then train, from the archives or from the files in them."""
    to = tmp_path / "replays"
    done = prepare(hub, tmp_path, "download", "--repo", REPLAYS, "--formats", "gen1ou", "gen9ou", "--to", to, *unpack)
    assert done.returncode == 0, done.stderr
    battles = dataset_of(to, tmp_path)
    assert len(battles) == 8
    (source,) = battles.sources.parts
    (origin,) = json.loads((Path(source.root) / DOWNLOADS).read_text())
    assert (origin["repo"], origin["licence"]) == (REPLAYS, "CC-BY-NC-4.0")


@pytest.mark.parametrize("unpack", [[], ["--unpack"]])
def test_the_origin_of_a_subset_and_of_one_format_is_found(hub, tmp_path, unpack):
    """They lie below the folder that the download was told; a model's licence hangs on it."""
    to = tmp_path / "pile"
    done = prepare(hub, tmp_path, "download", "--repo", PILE, "--subset", "pac-base", "--to", to, *unpack)
    assert done.returncode == 0, done.stderr
    read = [to / "pac-base"]
    if unpack:
        read.append(to / "pac-base" / "gen1ou")
        make_cache(CacheJob(str(read[-1]), str(tmp_path / "c")), processes=1, progress=False)
        read.append(tmp_path / "c")
    for path in read:
        assert len(dataset_of(path, tmp_path)) == 4
        (origin,) = json.loads(download_note(path).read_text())
        assert origin["repo"] == PILE
    write_battles(to / "pac-base" / "recorded", 4, style=Style(max_turns=8))
    assert download_note(to / "pac-base" / "recorded") is None


def test_each_origin_is_noted_once(tmp_path):
    for repo in ("me/a", "me/b", "me/a"):
        module._note_download(tmp_path / "new" / "d", {"repo": repo})
    assert json.loads((tmp_path / "new" / "d" / DOWNLOADS).read_text()) == [{"repo": "me/a"}, {"repo": "me/b"}]


def test_a_note_that_a_full_disk_cut_is_named(hub, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / DOWNLOADS).write_text("")
    done = prepare(hub, tmp_path, "download", "--repo", REPLAYS, "--formats", "gen1ou", "--to", tmp_path / "d")
    assert done.returncode == 1
    assert "downloads.json: cannot be read (Expecting value" in done.stderr


def test_a_stopped_download_goes_on(hub, tmp_path):
    hub.cut_first_download = True
    arguments = ("download", "--repo", REPLAYS, "--formats", "gen1ou", "--to", tmp_path / "d")
    for _ in range(2):  # the client may go on by itself, or at the second call
        done = prepare(hub, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d" / "gen1ou.tar.gz").read_bytes() == hub.files[REPLAYS]["gen1ou.tar.gz"]


def test_a_wrong_size_is_refused(hub, tmp_path):
    hub.lie_about_sizes = True
    done = prepare(hub, tmp_path, "download", "--repo", REPLAYS, "--formats", "gen1ou", "--to", tmp_path / "d")
    assert done.returncode == 1
    assert "the Hub says" in done.stderr
    assert not (tmp_path / "d" / "gen1ou.tar.gz").exists()


def test_pile_and_teams_have_their_own_layouts(hub, tmp_path):
    to = tmp_path / "d"
    done = prepare(hub, tmp_path, "download", "--repo", PILE, "--subset", "pac-base", "--to", to, "--unpack")
    assert done.returncode == 0, done.stderr
    assert len(list((to / "pac-base" / "gen1ou").iterdir())) == 4
    assert "not stated" in done.stdout
    done = prepare(hub, tmp_path, "download", "--repo", TEAMS, "--subset", "competitive", "--to", to, "--unpack")
    assert done.returncode == 0, done.stderr
    (team,) = (to / "competitive" / "gen1ou").iterdir()
    assert (team.name, team.read_text()) == ("a.gen1ou_team", "Snorlax")
    assert "1 files, 1 left out" in done.stdout


@pytest.mark.slow
def test_what_is_not_there_is_named(hub, tmp_path):
    done = prepare(hub, tmp_path, "download", "--repo", "no/body", "--to", tmp_path / "d")
    assert done.returncode == 1
    assert "no/body@main" in done.stderr
    done = prepare(hub, tmp_path, "download", "--repo", REPLAYS, "--formats", "gen7ou", "--to", tmp_path / "d")
    assert done.returncode == 1
    assert "gen7ou not in" in done.stderr
    assert "gen1ou, gen9ou" in done.stderr


def test_the_same_files_are_packed_to_the_same_bytes(tmp_path):
    write_battles(tmp_path, 4, seed=5)
    (tmp_path / "gen1ou" / "notes.txt").write_text("none of them")
    min((tmp_path / "gen1ou").glob("*.lz4")).with_suffix("").write_bytes(b"unpacked beside itself")
    file, packed = tmp_path / "gen1ou.tar.gz", []
    for second in range(2):
        for battle in (tmp_path / "gen1ou").iterdir():
            os.utime(battle, (second, second))
        _pack(_battle_files(tmp_path / "gen1ou"), file, "gen1ou")
        packed.append(file.read_bytes())
        time.sleep(1.1)  # gzip would note the second
    assert packed[0] == packed[1]
    with tarfile.open(file) as archive:
        assert archive.getnames() == sorted(f"gen1ou/{path.name}" for path in (tmp_path / "gen1ou").glob("*.lz4"))


def test_choosing_files():
    files = ["gen1ou.tar.gz", "pac-base/gen1ou.tar.lz4", "pac-base/gen9ou.tar.lz4", "notes.md"]
    assert choose_files(files, [], "pac-base", "r") == {
        "gen1ou": "pac-base/gen1ou.tar.lz4",
        "gen9ou": "pac-base/gen9ou.tar.lz4",
    }
    with pytest.raises(DataError, match="pac-base"):
        choose_files(files[1:], [], "", "r")
    with pytest.raises(DataError, match="no archives; fetch it by `hf download me/c --repo-type dataset"):
        choose_files(["index.bin", "manifest.json", "README.md"], [], "", "me/c")


def test_the_licence_is_the_one_stated_or_else_the_one_known():
    def told(repo, card):
        return licence_of(SimpleNamespace(dataset_info=lambda *_, **__: SimpleNamespace(card_data=card)), repo, "main")

    assert told(REPLAYS, {"license": "mit"}) == "mit"
    assert told(REPLAYS, {}) == told(REPLAYS, None) == "CC-BY-NC-4.0"
    assert told(PILE, None).startswith("not stated")


def test_a_card_draws_every_rating():
    stats = {"battles": 1001, "turns": {"total": 9}, "formats": {}, "ratings": {"900": 1, "1000": 1000}}
    rows = [line.split() for line in battles_card("me/x", "mit", stats).splitlines() if "#" in line[1:]]
    assert rows == [["900", "#", "1"], ["1000", "#" * 40, "1,000"]]
    assert "license: mit" in battles_card("me/x", "mit", stats | {"ratings": {}})


def test_a_push_that_the_hub_refuses_is_said(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise HfHubHTTPError("no write access", response=SimpleNamespace(headers={}, request=None, status_code=403))

    write_battles(tmp_path / "b", 2, style=Style(max_turns=4))
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "i"))
    monkeypatch.setattr(module, "HfApi", lambda: SimpleNamespace(create_repo=refused))
    with pytest.raises(DataError, match="me/b"):
        module.push(tmp_path / "b", "me/b", "mit")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_push_uploads_files_alone(tmp_path, kind):
    """A pipe would be waited for."""
    write_battles(tmp_path / "b", 2, formats=("gen1ou",), style=Style(max_turns=4))
    odd = tmp_path / "b" / "gen1ou" / "odd.json"
    {"link": lambda: odd.symlink_to(tmp_path / "gone"), "pipe": lambda: os.mkfifo(odd), "folder": odd.mkdir}[kind]()
    with pytest.raises(DataError, match=r"odd\.json: is no file: put the battle"):
        module.push(tmp_path / "b", "me/b", "mit")


class Repositories:
    """Of the Hub's client, what a push asks of it; `held` is what lies in each repository then, by name."""

    def __init__(self):
        self.held, self.private = {}, {}

    def create_repo(self, repo, repo_type, private, exist_ok):
        if repo in self.held and not exist_ok:
            raise HfHubHTTPError("409", response=SimpleNamespace(headers={}, request=None, status_code=409))
        self.private.setdefault(repo, private)
        self.held.setdefault(repo, set())
        return "its address"

    def upload_folder(self, repo_id, repo_type, folder_path, allow_patterns=None, delete_patterns=None):
        names = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
        if delete_patterns:
            self.held[repo_id] -= set(filter_repo_objects(list(self.held[repo_id]), allow_patterns=delete_patterns))
        self.held[repo_id].update(filter_repo_objects(names, allow_patterns=allow_patterns))


def test_a_cache_of_battles_with_terms_is_not_pushed_under_others_in_silence(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "HfApi", Repositories)
    write_battles(tmp_path / "b", 2, formats=("gen1ou",), style=Style(max_turns=4))
    note = [{"repo": "they/made", "revision": "v1", "licence": "CC-BY-NC-4.0"}]
    (tmp_path / "b" / DOWNLOADS).write_text(json.dumps(note))
    make_cache(CacheJob(str(tmp_path / "b"), str(tmp_path / "c")), processes=1, progress=False)
    for licence in ("cc-by-nc-4.0", "mit"):
        assert "non-commercial use" not in caplog.text
        module.push(tmp_path / "c", "me/c", licence)
    assert "--licence mit: these battles come from they/made, which asks for non-commercial use" in caplog.text


def test_what_a_reader_of_a_cache_needs_is_pushed_and_no_more(tmp_path, monkeypatch):
    """With the note of where its battles were fetched: their licence hangs on it. Pushed again, it has none of the
    shards of before."""
    cache, api = tmp_path / "c", Repositories()
    monkeypatch.setattr(module, "HfApi", lambda: api)
    write_battles(tmp_path / "b", 6, formats=("gen1ou", "gen2ou"), style=Style(max_turns=4))
    (tmp_path / "b" / DOWNLOADS).write_text(json.dumps([{"repo": PILE, "revision": "main", "licence": "mit"}]))
    others = {"README.md", "index.bin", "manifest.json", "vocabulary.json", DOWNLOADS}
    others |= {"state.json", "dataset_info.json"}  # by which `datasets` reads the folder
    for shards in (2, 1):
        make_cache(CacheJob(str(tmp_path / "b"), str(cache)), processes=1, progress=False)
        (cache / "notes.txt").write_text("one's own")
        assert module.push(cache, "me/c", "mit", private=shards == 1) == "its address"
        manifest = json.loads((cache / "manifest.json").read_text())
        assert api.held["me/c"] == others | {shard["file"] for shard in manifest["shards"]}
        assert len(manifest["shards"]) == shards
        shutil.rmtree(tmp_path / "b" / "gen1ou")
        (tmp_path / "b" / "gen1ou").mkdir()
    assert api.private == {"me/c": False}


def test_push_battles_with_a_card_and_fetch_them_back(hub, tmp_path):
    write_battles(tmp_path / "b", 10, style=Style(max_turns=8))
    done = prepare(hub, tmp_path, "push", "--from", tmp_path / "b", "--to", "me/mine", "--licence", "cc-by-4.0")
    assert done.returncode == 0, done.stderr
    uploaded = hub.uploads["me/mine"]
    assert set(uploaded) == {f"{name}.tar.gz" for name in ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou")} | {
        "README.md",
        "stats.json",
    }
    card = uploaded["README.md"].decode()
    assert "license: cc-by-4.0" in card
    assert "| gen1ou | 2 |" in card
    assert json.loads(uploaded["stats.json"])["battles"] == 10
    assert hub.private == {"me/mine": True}
    hub.files["me/mine"] = uploaded
    done = prepare(hub, tmp_path, "download", "--repo", "me/mine", "--to", tmp_path / "d", "--unpack")
    assert done.returncode == 0, done.stderr
    sent = {path.name: path.read_bytes() for path in (tmp_path / "b").glob("*/*.lz4")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "d").glob("*/*.lz4")} == sent
    # One format of them, whose origin is known by now: the others' archives go, and what it asks for is said.
    note = json.dumps([{"repo": "they/made", "revision": "v1", "licence": "CC-BY-NC-4.0"}])
    (tmp_path / "b" / "downloads.json").write_text(note)
    for name in ("gen2ou", "gen3ou", "gen4ou", "gen9ou"):
        shutil.rmtree(tmp_path / "b" / name)
    done = prepare(hub, tmp_path, "push", "--from", tmp_path / "b", "--to", "me/mine", "--licence", "cc-by-4.0")
    assert done.returncode == 0, done.stderr
    assert "these battles come from they/made, which asks for non-commercial use" in done.stderr
    assert set(hub.uploads["me/mine"]) == {"gen1ou.tar.gz", "README.md", "stats.json", "downloads.json"}
    assert hub.uploads["me/mine"]["downloads.json"].decode() == note


@pytest.mark.slow
def test_push_a_token_cache(hub, tmp_path):
    write_battles(tmp_path / "b", 6, style=Style(max_turns=8))
    make_cache(CacheJob(str(tmp_path / "b"), str(tmp_path / "c")), processes=1, progress=False)
    done = prepare(hub, tmp_path, "push", "--from", tmp_path / "c", "--to", "me/cache", "--licence", "mit")
    assert done.returncode == 0, done.stderr
    uploaded = hub.uploads["me/cache"]
    assert {"manifest.json", "index.bin", "vocabulary.json", "README.md"} <= set(uploaded)
    assert not any(name.startswith("parts/") for name in uploaded)
    assert uploaded["index.bin"] == (tmp_path / "c" / "index.bin").read_bytes()
    shutil.rmtree(tmp_path / "b" / "gen1ou")
    manifest = make_cache(CacheJob(str(tmp_path / "b"), str(tmp_path / "c")), processes=1, progress=False)
    done = prepare(hub, tmp_path, "push", "--from", tmp_path / "c", "--to", "me/cache", "--licence", "mit")
    assert done.returncode == 0, done.stderr
    shards = {name: content for name, content in hub.uploads["me/cache"].items() if name.startswith("shard-")}
    assert set(shards) == {shard["file"] for shard in manifest["shards"]}
    assert all(content == (tmp_path / "c" / name).read_bytes() for name, content in shards.items())


def test_an_archive_of_ones_own_does_not_give_way_to_one_of_another_repository(hub, tmp_path):
    """Nor that of a repository fetched before: both call theirs by its format."""
    (tmp_path / "d").mkdir()
    mine = tmp_path / "d" / "gen1ou.tar.gz"
    mine.write_bytes(tar("gen1ou", {}))
    kept = mine.read_bytes()
    fetch = ("download", "--repo", REPLAYS, "--formats", "gen1ou", "--to", tmp_path / "d")
    done = prepare(hub, tmp_path, *fetch)
    assert (done.returncode, mine.read_bytes()) == (1, kept)
    assert f"{mine}: lies there, and is not of {REPLAYS}: give --to another folder" in done.stderr
    assert not (tmp_path / "d" / DOWNLOADS).exists()
    assert prepare(hub, tmp_path, *fetch[:-3], "gen9ou", *fetch[-2:]).returncode == 0  # beside it
    mine.unlink()
    assert prepare(hub, tmp_path, *fetch).returncode == 0
