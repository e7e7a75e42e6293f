"""Public data sets from the Hugging Face Hub, and one's own to it, through `huggingface_hub`.

Layouts met: `jakegrigsby/metamon-parsed-replays` holds `{format}.tar.gz` (revisions v1 …),
`jakegrigsby/metamon-parsed-pile` `{subset}/{format}.tar.lz4`, `jakegrigsby/metamon-teams` `{set}/{format}.tar.gz`.
Files are looked up in the repository's own list, so another layout of the same names works too.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, hf_hub_download

from .archive import unpack_archive
from .cache_manifest import Manifest, is_cache, read_manifest
from .cache_shard import write_json
from .folders import DOWNLOADS, ENDINGS, MANIFEST, DataError, download_note, format_folders, read_origins
from .hub_errors import HUB_ERRORS, said_of
from .replay_file import is_battle_file
from .stats import folder_stats

log = logging.getLogger(__name__)

LICENCES = {"jakegrigsby/metamon-parsed-replays": "CC-BY-NC-4.0"}
_PARTS_OF_CACHE = (
    "shard-*.arrow", "index.bin", "manifest.json", "vocabulary.json", "state.json", "dataset_info.json", DOWNLOADS,
)  # fmt: skip


def download(
    repo: str, revision: str, formats: Sequence[str], to: Path, subset: str = "", unpack: bool = False
) -> None:
    """Fetch the archives of some formats; what is there already, whole, is not fetched again.

    Args:
        repo: dataset repository on the Hub.
        revision: branch or tag.
        formats: formats to fetch; empty: all.
        to: folder; archives land there as the repository has them.
        subset: folder in the repository (`pac-base` of the pile, `competitive` of the teams).
        unpack: also unpack each, to `to/[subset/]{format}/`.

    Raises:
        DataError: no such repository, revision or format; a file of the wrong size; a network fault.
    """
    api = HfApi()
    try:
        files = api.list_repo_files(repo, revision=revision, repo_type="dataset")
        chosen = choose_files(files, formats, subset, repo)
        sizes = {
            info.path: info.size
            for info in api.get_paths_info(repo, list(chosen.values()), revision=revision, repo_type="dataset")
        }
        _refuse_others_archives(to, subset, repo, {file: sizes.get(file) for file in chosen.values()})
        licence = licence_of(api, repo, revision)
        print(f"{repo}@{revision}: licence {licence}")
        _note_download(to / subset, {"repo": repo, "revision": revision, "licence": licence})
        for name, file in chosen.items():
            path = Path(hf_hub_download(repo, file, revision=revision, repo_type="dataset", local_dir=to))
            size = path.stat().st_size
            if sizes.get(file) is not None and size != sizes[file]:
                path.unlink()
                raise DataError(f"{path}: has {size} bytes, the Hub says {sizes[file]}; it was removed, fetch it again")
            print(f"{path}: {size:,} bytes")
            if unpack:
                written, left_out = unpack_archive(path, path.parent, wanted=_is_data)
                print(f"{path.parent / name}: {written:,} files, {left_out} left out")
            elif (path.parent / name).is_dir():
                log.warning(
                    "%s: is read, and not %s beside it: give --unpack, which brings it up to that, or remove it",
                    path.parent / name, path.name,
                )  # fmt: skip
    except HUB_ERRORS as error:
        raise DataError(said_of(error, f"{repo}@{revision}")) from error


def _refuse_others_archives(to: Path, subset: str, repo: str, sizes: dict[str, int | None]) -> None:
    """Raises DataError where an archive by the name of one to fetch lies there, and nothing of `repo` was fetched to
    its folder: of another repository, or one's own, it would give way."""
    noted = to / subset / DOWNLOADS
    if any(origin["repo"] == repo for origin in (read_origins(noted) if noted.exists() else [])):
        return
    for file, size in sizes.items():
        if (to / file).exists() and (to / file).stat().st_size != size:
            raise DataError(f"{to / file}: lies there, and is not of {repo}: give --to another folder, or move it away")


def _note_download(to: Path, entry: dict[str, str]) -> None:
    """Keep where data came from in `downloads.json`, a list, beside it, so that a model trained on it can say so."""
    noted = to / DOWNLOADS
    entries = read_origins(noted) if noted.exists() else []
    if entry not in entries:
        to.mkdir(parents=True, exist_ok=True)
        write_json(noted, [*entries, entry])


def _warn_of_terms(origins: list[dict[str, str]], licence: str) -> None:
    bound = [origin["repo"] for origin in origins if "-nc" in origin["licence"].lower()]
    if bound and "-nc" not in licence.lower():
        told = ", ".join(bound)
        log.warning("--licence %s: these battles come from %s, which asks for non-commercial use", licence, told)


def choose_files(files: Sequence[str], formats: Sequence[str], subset: str, repo: str) -> dict[str, str]:
    """The archives of the formats asked for, by format, among a repository's files. Raises `DataError`."""
    there: dict[str, str] = {}
    subsets = set()
    for file in files:
        path = PurePosixPath(file)
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is None:
            continue
        folder = str(path.parent) if path.parent != PurePosixPath(".") else ""
        subsets.add(folder)
        if folder == subset:
            there[path.name[: -len(ending)]] = file
    missing = [name for name in formats if name not in there]
    if not there and MANIFEST in files:  # as `push` leaves one
        raise DataError(
            f"{repo}: holds a token cache and no archives; fetch it by `hf download {repo} --repo-type dataset "
            "--local-dir DIR`, and give DIR as data.path"
        )
    if not there or missing:
        what = f"{', '.join(missing)} not in" if there else "no archive in"
        raise DataError(
            f"{repo}: {what} {subset or 'its top folder'}; there are {', '.join(sorted(there)) or 'none'} "
            f"(--subset: {', '.join(sorted(s for s in subsets if s)) or 'none'})"
        )
    return {name: there[name] for name in (formats or sorted(there))}


def licence_of(api: HfApi, repo: str, revision: str) -> str:
    """The licence that a repository states, or the one known of it."""
    info = api.dataset_info(repo, revision=revision)
    stated = info.card_data.get("license") if info.card_data else None
    return str(stated or LICENCES.get(repo, "not stated: ask its owner"))


def push(folder: Path, repo: str, licence: str, private: bool = True) -> str:
    """Upload a folder of battles (as `{format}.tar.gz`) or a token cache, with a dataset card.

    Args:
        folder: battles or cache.
        repo: where to; made if it isn't there.
        licence: licence of the data, as the Hub names it (`cc-by-4.0`).
        private: of a new repository.

    Returns:
        the repository's address.

    Raises:
        DataError: nothing to upload, a pipe or the like among the battle files, or the Hub refused.
    """
    api = HfApi()
    cached, note = is_cache(folder), download_note(folder)
    if note:
        _warn_of_terms(read_origins(note), licence)
    with tempfile.TemporaryDirectory() as staged_name:
        staged = Path(staged_name)
        if cached:
            manifest = read_manifest(folder)
            card = cache_card(repo, licence, manifest)
        else:
            formats = {name: _battle_files(battles) for name, battles in format_folders(folder).items()}
            stats = folder_stats(folder, bar=False)
            for name, files in formats.items():
                _pack(files, staged / f"{name}.tar.gz", name)
            (staged / "stats.json").write_text(json.dumps(stats, indent=1), encoding="utf-8")
            card = battles_card(repo, licence, stats)
            if note:
                shutil.copy2(note, staged / DOWNLOADS)
        (staged / "README.md").write_text(card, encoding="utf-8")
        try:
            url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            # Archives of formats that an earlier push had, and this one has not, would be read with these.
            stale = None if cached else "*.tar.gz"
            api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=staged, delete_patterns=stale)
            if cached:
                # Shards of an earlier push would be read with these by whoever opens `shard-*.arrow`.
                api.upload_folder(
                    repo_id=repo,
                    repo_type="dataset",
                    folder_path=folder,
                    allow_patterns=list(_PARTS_OF_CACHE),
                    delete_patterns="shard-*.arrow",
                )
        except HUB_ERRORS as error:
            raise DataError(said_of(error, repo)) from error
    return str(url)


def battles_card(repo: str, licence: str, stats: dict[str, Any]) -> str:
    """A dataset card for battle files."""
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in stats["formats"].items())
    most = max(stats["ratings"].values(), default=1)
    ratings = "\n".join(
        f"{rating:>7} {'#' * max(1, round(40 * n / most)):<40} {n:,}" for rating, n in stats["ratings"].items()
    )
    return f"""---
license: {licence}
tags: [pokemon, reinforcement-learning, offline-rl, turnwise]
---
# {repo.rsplit("/", maxsplit=1)[-1]}

{stats["battles"]:,} first-person views of Pokémon Showdown singles battles, {stats["turns"]["total"]:,} turns,
recorded with Turnwise.

| format | battles |
| --- | --- |
{rows}

Ratings (by 100; filters take a battle without one for 1000):

```
{ratings}
```

Schema: one `{{format}}.tar.gz` per format, of
`{{battle_id}}_{{rating}}_{{player}}_vs_{{opponent}}_{{date}}_{{result}}.json.lz4`: lz4-framed JSON
`{{"states": [...], "actions": [...]}}` in the universal state schema of the Metamon data sets. Actions: 0-3 moves,
4-8 switches, 9-12 moves with terastallization, -1 not recorded. Licence: {licence}.
"""


def cache_card(repo: str, licence: str, manifest: Manifest) -> str:
    """A dataset card for a token cache."""
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in manifest["formats"].items())
    return f"""---
license: {licence}
tags: [pokemon, reinforcement-learning, offline-rl, turnwise]
---
# {repo.rsplit("/", maxsplit=1)[-1]}

A Turnwise token cache: {manifest["battles"]:,} battles, {manifest["turns"]:,} turns, observation space
`{manifest["space"]}`, vocabulary `{manifest["vocabulary"][:12]}` (`vocabulary.json`), cache version
{manifest["version"]}.

| format | battles |
| --- | --- |
{rows}

Schema: Arrow streams with one row per battle (`datasets.load_dataset("arrow", data_files="shard-*.arrow")`): path,
format, rating, players, date, outcome, and per turn `words` (uint16), `codes` (uint8), `hp` (float32), `action`,
`legal` (bits) and three rewards. Licence: {licence}.
"""


def _battle_files(battles: Path) -> list[Path]:
    """One format's files, and those that links lead to, sorted, of a battle that lies there packed and unpacked the
    packed one. Raises DataError where one is a pipe, which reading would wait for, a folder, or a link that leads
    nowhere."""
    found = []
    with os.scandir(battles) as entries:
        for entry in entries:
            if is_battle_file(entry.name):
                file = battles / entry.name
                if not entry.is_file():
                    raise DataError(f"{file}: is no file: put the battle in its place, or move it elsewhere")
                found.append(file)
    packed = set(found)
    return sorted(file for file in found if file.with_name(f"{file.name}.lz4") not in packed)


def _pack(files: Sequence[Path], archive: Path, name: str) -> None:
    """One format's files as an archive, the same bytes for the same files."""
    # Without the time of packing, which gzip would write down.
    with (
        gzip.GzipFile(archive, "wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for file in files:
            content = file.read_bytes()
            info = tarfile.TarInfo(f"{name}/{file.name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _is_data(name: str) -> bool:
    return is_battle_file(name) or name.endswith("_team")
