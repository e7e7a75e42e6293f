"""Configuration of the data: what is read, from where, in what mix, and by which rules."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from .encode import ILLEGAL_RULES
from .folders import DataError
from .observation import space_named
from .packing import MIN_WINDOW
from .replay_file import MAX_BYTES
from .reward import REWARDS

SPLIT_KEYS = ("battle", "players")


@dataclass(frozen=True)
class SourceConfig:
    """One folder of a mix.

    Args:
        path: folder of battle files, of archives or of a token cache, or an archive.
        weight: its share of the mix, against the other sources' weights.
        filter: which of its battles to take.
        formats: which of its formats; empty: those of `data.formats`.
    """

    path: str
    weight: float = 1.0
    filter: str = ""
    formats: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: dict[str, Any], where: str) -> SourceConfig:
        """Read one entry of `data.sources`. Raises `DataError` naming the key at fault."""
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str) or not entry["path"]:
            raise DataError(f"{where}: is {entry!r}; give {{path, weight, filter, formats}} with a path")
        for key in entry:
            if key not in cls.__dataclass_fields__:
                near = difflib.get_close_matches(key, cls.__dataclass_fields__, n=1)
                raise DataError(f"{where}.{key}: is unknown" + (f"; did you mean {near[0]}?" if near else ""))
        filters, formats = entry.get("filter") or "", entry.get("formats") or ()
        if not isinstance(filters, str):
            raise DataError(f"{where}.filter: is {filters!r}; give an expression as text, as 'rating >= 1500'")
        if not isinstance(formats, (list, tuple)) or not all(isinstance(name, str) for name in formats):
            raise DataError(f"{where}.formats: is {formats!r}; give a list of them, as [gen1ou, gen9ou]")
        source = cls(**{**entry, "filter": filters, "formats": tuple(formats)})
        if (
            isinstance(source.weight, bool)
            or not isinstance(source.weight, (int, float))
            or not 0 < source.weight < 1e9
        ):
            raise DataError(f"{where}.weight: is {source.weight!r}; give a number above 0")
        return source


@dataclass
class DataConfig:
    """What is read, and by which rules.

    Args:
        path: folder of `{format}/*.json.lz4` or of `{format}.tar.gz`, one of these, or a token cache.
        formats: formats to take; empty: all there are.
        space: observation space.
        reward: reward kind.
        vocabulary: vocabulary file; none: the one shipped.
        max_turns: longest window, in turns.
        heldout_share: share of battles kept from training.
        split_by: what falls on one side together: both views of a `battle`, or all battles of two `players`.
        workers: loader processes per training process; 0: none, in the training process itself.
        prefetch: packs that each worker prepares ahead.
        max_reject_share: a run stops when more of the files seen are rejected (and at least two are).
        max_unknown_share: a run doesn't start with more unknown words.
        max_bytes: cap on a file's decompressed size.
        illegal_actions: `reject` a battle with an action illegal in its state, or take the action as `unrecorded`.
        cache_dir: where indexes are kept; none: `TURNWISE_CACHE` or `~/.cache/turnwise`.
        rescan: scan every folder anew, and compare archives with the token cache made of them.
        turns: find every battle's length at the start: `auto` (of up to 20,000 files that have none yet),
            `always` or `never`.
        filter: which battles to take, an expression over the index's columns (`expression.py`).
        clone: of those, which ones the policy clones: an expression, as `player == 'planner'`; empty: all. The others
            teach the critics alone.
        weight: how often a battle is drawn against others, an expression; at most once an epoch.
        format_weights: the same by format; formats not named have 1.
        sources: several folders instead of `path`, each `{path, weight, filter, formats}`; weights are shares of the
            mix: `weight: 1` twice draws as many battles from each, whatever their sizes. Any folder, here or as `path`,
            may be a token cache.
    """

    path: str = ""
    formats: list[str] = field(default_factory=list)
    space: str = "default"
    reward: str = "shaped"
    vocabulary: str | None = None
    max_turns: int = 128
    heldout_share: float = 0.02
    split_by: str = "battle"
    workers: int = 2
    prefetch: int = 4
    max_reject_share: float = 0.01
    max_unknown_share: float = 0.05
    max_bytes: int = MAX_BYTES
    illegal_actions: str = "reject"
    cache_dir: str | None = None
    rescan: bool = False
    turns: str = "auto"
    filter: str = ""
    clone: str = ""
    weight: str = ""
    format_weights: dict[str, float] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        space_named(self.space)
        checks = [
            (self.reward in REWARDS, "reward", f"one of {', '.join(REWARDS)}"),
            (self.max_turns >= MIN_WINDOW, "max_turns", f"{MIN_WINDOW} or more"),
            (0.0 <= self.heldout_share < 1.0, "heldout_share", "0 or more and below 1"),
            (self.split_by in SPLIT_KEYS, "split_by", f"one of {', '.join(SPLIT_KEYS)}"),
            (self.workers >= 0, "workers", "0 or more"),
            (self.prefetch >= 1, "prefetch", "1 or more"),
            (0.0 <= self.max_reject_share <= 1.0, "max_reject_share", "between 0 and 1"),
            (0.0 <= self.max_unknown_share <= 1.0, "max_unknown_share", "between 0 and 1"),
            (self.max_bytes > 0, "max_bytes", "above 0"),
            (self.illegal_actions in ILLEGAL_RULES, "illegal_actions", f"one of {', '.join(ILLEGAL_RULES)}"),
            (self.turns in ("auto", "always", "never"), "turns", "auto, always or never"),
        ]
        for holds, name, mend in checks:
            if not holds:
                raise DataError(f"data.{name} is {getattr(self, name)!r}; give {mend}")
        if any(not isinstance(w, (int, float)) or not 0 <= w < float("inf") for w in self.format_weights.values()):
            raise DataError(f"data.format_weights is {self.format_weights!r}; give numbers of 0 or more")
        if self.sources and self.path:
            raise DataError(
                "data.path and data.sources are both given; put the path into a source, or take away what a file gives:"
                " 'data.path=\"\"'"
            )

    def all_sources(self) -> list[SourceConfig]:
        """The sources, or the one of `path`. Raises `DataError` for an unknown or missing key."""
        if not self.sources:
            if not self.path:
                raise DataError("data.path is empty; give the folder of battle files, or data.sources")
            return [SourceConfig(self.path)]
        return [SourceConfig.of(entry, f"data.sources[{i}]") for i, entry in enumerate(self.sources)]
