"""`manifest.json` of a token cache: what it holds and by which rules it was made, checked as it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

import msgspec

from .folders import MANIFEST, DataError
from .schema import SCHEMA_VERSION

CACHE_VERSION = 1
KIND = "turnwise-token-cache"


class HashedFile(TypedDict):
    """A file of a cache, by its name in it; the hash in hex."""

    file: str
    sha256: str


class ShardFacts(HashedFile):
    """A shard: how many battles and turns it holds, its size in bytes."""

    battles: int
    turns: int
    bytes: int


class Rejects(TypedDict):
    """Files that were not taken: how many, how many by each field, of each format and for illegal actions, and the
    first of them with their reasons."""

    count: int
    by_field: dict[str, int]
    by_format: NotRequired[dict[str, int]]
    illegal: NotRequired[int]
    files: list[tuple[str, str]]


class Manifest(TypedDict):
    """`manifest.json`: what a cache holds and by which rules it was made. Older ones lack what is not required."""

    kind: str
    version: int
    schema: int
    space: str
    space_digest: NotRequired[str | None]
    vocabulary: str
    rewards: NotRequired[dict[str, str]]
    source: str
    battles: int
    turns: int
    bytes: int
    formats: dict[str, int]
    unknown_words: int
    words: int
    dropped_tails: int
    illegal_actions: NotRequired[int]
    index: NotRequired[HashedFile]
    rejects: Rejects
    shards: list[ShardFacts]


def read_manifest(path: Path) -> Manifest:
    """A cache's manifest. Raises `DataError`: none there, unfinished, or of another version."""
    file = Path(path) / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: holds no {MANIFEST}: no token cache, or not finished; run the same `data.prepare cache` again"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}); make the cache again") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise DataError(f"{file}: is no token cache's manifest; give another folder")
    for key, ours in (("version", CACHE_VERSION), ("schema", SCHEMA_VERSION)):
        if manifest.get(key) != ours:
            raise DataError(f"{file}: {key} is {manifest.get(key)}, this program's is {ours}; make the cache again")
    try:
        return msgspec.convert(manifest, Manifest)
    except msgspec.ValidationError as error:
        raise DataError(f"{file}: cannot be read ({error}); make the cache again") from error


def is_cache(path: Path) -> bool:
    """Whether a folder is meant as a token cache."""
    return (Path(path) / MANIFEST).is_file()
