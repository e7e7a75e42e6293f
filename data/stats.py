"""What a folder of battles, or a token cache, holds: counts, lengths, actions, results, unknown words, rejects; as
table, JSON and PNG."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .cache_manifest import is_cache
from .encode import EncodedBattle, Encoder
from .folders import MANIFEST, DataError
from .index import open_index
from .listing import cached_rows, chosen_paths
from .parallel import map_pieces
from .replay_file import BattleName, parse_name, read_lean
from .schema import FIRST_SWITCH, FIRST_TERA, BadBattle
from .token_cache import CachedBattle, TokenCache
from .tokenizer import GrowingTokenizer, Tokenizer

RATING_STEP = 100
SHOWN = 20
KINDS = ("move", "switch", "forced switch", "tera", "not recorded")
_Counted = tuple[Counter, list[int], list[tuple[str, str]]]  # counts, lengths, rejects with their reasons


def folder_stats(
    root: Path,
    formats: Sequence[str] = (),
    vocabulary: str | None = None,
    cache_dir: str | None = None,
    processes: int | None = None,
    bar: bool = True,
    chosen: str = "",
) -> dict[str, Any]:
    """Read every battle of a folder or a token cache for which the expression `chosen` holds, and count.

    Returns:
        plain JSON: files, formats, ratings (by 100, and unrated), years, turns {mean, p50, p99, max, total, histogram},
        actions by kind, missing_share, results, forfeit_wins (won with opponents standing), cut_short, dropped_tails,
        unknown_words {count, share, most}, rejects {count, by_reason, files}. Rejects are all those of the formats, but
        for files of a folder that cannot be read, of which those chosen count. A cache does not tell forfeits, dropped
        tails and words that its own vocabulary lacks: None, None and no `most`.

    Raises:
        DataError: nothing to read there, an expression that cannot be evaluated, a vocabulary beside a cache's own.
    """
    root = Path(root).resolve()  # a folder of one format is named by its own name, also from within
    if is_cache(root):
        return _cache_stats(root, formats, vocabulary, processes, bar, chosen)
    parts = open_index(root, formats, cache_dir)
    paths = list(chosen_paths(parts, chosen))
    rejects = [(item.path, item.reason) for part in parts for item in part.bad_names]
    counted = partial(_count, root=os.fspath(root), vocabulary=vocabulary)
    total, turns, bad = _together(map_pieces(counted, paths, desc="stats", processes=processes, bar=bar))
    rejects += bad
    return _figures(total, turns, len(rejects), _by_reason(rejects), rejects)


def _by_reason(rejects: Iterable[tuple[str, str]]) -> dict[str, int]:
    return dict(Counter(reason.split(":", 1)[0].split("[", 1)[0] for _, reason in rejects))


def _cache_stats(
    root: Path, formats: Sequence[str], vocabulary: str | None, processes: int | None, bar: bool, chosen: str
) -> dict[str, Any]:
    if vocabulary:
        raise DataError(f"--vocabulary: the words of the token cache {root} are of its own; leave the option out")
    made = (root / MANIFEST).stat().st_mtime_ns
    cache = _opened(root, made)  # before its workers are forked, which have it then
    rows = cached_rows(cache, formats, chosen)
    counted = partial(_count_cached, path=root, made=made)
    total, turns, _ = _together(map_pieces(counted, rows, desc="stats", processes=processes, bar=bar))
    _, unread, named = cache.counts(formats)
    rejects = cache.manifest["rejects"]
    # A manifest counts reasons over all formats; of some, those of the rejects that it names have to do.
    reasons = rejects["by_field"] if unread == rejects["count"] else _by_reason(named)
    found = _figures(total, turns, unread, reasons, named)
    return found | {"forfeit_wins": None, "dropped_tails": None}


def _together(pieces: Iterable[_Counted]) -> _Counted:
    total, turns, rejects = Counter(), [], []
    for counts, lengths, bad in pieces:
        total.update(counts)
        turns += lengths
        rejects += bad
    return total, turns, rejects


def _figures(
    total: Counter, turns: list[int], unread: int, reasons: dict[str, int], rejects: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What `folder_stats` returns. unread: files that could not be used, by `reasons`; `rejects` names some."""
    lengths = np.array(turns or [0])
    words, unknown = total["words"], total["unknown"]
    actions = {kind: total["action", kind] for kind in KINDS}
    edges = np.arange(0, lengths.max() + 10, 10)
    return {
        "files": len(turns) + unread,
        "battles": len(turns),
        "formats": _table(total, "format"),
        "ratings": _table(total, "rating"),
        "years": _table(total, "year"),
        "turns": {
            "total": int(lengths.sum()),
            "mean": float(lengths.mean()),
            "p50": float(np.percentile(lengths, 50)),
            "p99": float(np.percentile(lengths, 99)),
            "max": int(lengths.max()),
            "histogram": {
                "edges": edges.tolist(),
                "counts": np.histogram(turns, [*edges, edges[-1] + 10])[0].tolist(),
            },
        },
        "actions": actions,
        "missing_share": actions["not recorded"] / max(1, sum(actions.values())),
        "results": {"won": total["won"], "lost": total["lost"], "cut short": total["cut short"]},
        "forfeit_wins": total["forfeit"],
        "cut_short": total["cut short"],
        "dropped_tails": total["dropped tail"],
        "unknown_words": {
            "count": unknown,
            "share": unknown / max(1, words),
            "most": dict(Counter({key[1]: n for key, n in total.items() if key[0] == "unknown"}).most_common(SHOWN)),
        },
        "rejects": {"count": unread, "by_reason": reasons, "files": rejects[:1000]},
    }


def _count(paths: Sequence[str], root: str, vocabulary: str | None) -> _Counted:
    tokenizer = Tokenizer.load(vocabulary)
    encoder = Encoder("opponentmove", tokenizer)
    counts: Counter = Counter()
    turns: list[int] = []
    rejects: list[tuple[str, str]] = []
    for path in paths:
        file = os.path.join(root, path)
        try:
            name = parse_name(file)
            battle = read_lean(file)
            encoded = encoder.encode(battle.states, battle.actions)
        except BadBattle as error:
            rejects.append((path, f"{error.field}: {error.reason}"))
            continue
        turns.append(len(encoded))
        _count_battle(counts, name, encoded)
        counts["forfeit"] += encoded.won and battle.states[len(encoded) - 1].opponents_remaining > 0
        counts["dropped tail"] += encoded.dropped_tail
        if encoded.n_unknown:
            for word, n in _unknown_words(battle, tokenizer).items():
                counts["unknown", word] += n
    return counts, turns, rejects


@functools.lru_cache(maxsize=1)
def _opened(path: Path, made: int) -> TokenCache:
    """For all pieces of the work: to open the index of millions takes longer than to count one. `made`: when, for a
    process that outlives the cache."""
    return TokenCache(path)


def _count_cached(rows: Sequence[int], path: Path, made: int) -> _Counted:
    cache = _opened(path, made)
    counts: Counter = Counter()
    names, turns = cache.table["path"], []
    for row in rows:
        battle = cache[row]
        turns.append(len(battle))
        _count_battle(counts, parse_name(names[row].as_py()), battle)
    return counts, turns, []


def _count_battle(counts: Counter, name: BattleName, battle: EncodedBattle | CachedBattle) -> None:
    counts["format", name.format] += 1
    counts["rating", str(name.rating // RATING_STEP * RATING_STEP) if name.rated else "unrated"] += 1
    counts["year", name.date[6:10]] += 1
    counts["won" if battle.won else "lost" if battle.lost else "cut short"] += 1
    counts["words"] += battle.words.size
    counts["unknown"] += battle.n_unknown
    action, forced = battle.action[:-1], battle.forced[:-1]
    switch = (action >= FIRST_SWITCH) & (action < FIRST_TERA)
    counts["action", "not recorded"] += int((action < 0).sum())
    counts["action", "move"] += int(((action >= 0) & (action < FIRST_SWITCH)).sum())
    counts["action", "tera"] += int((action >= FIRST_TERA).sum())
    counts["action", "forced switch"] += int((switch & forced).sum())
    counts["action", "switch"] += int((switch & ~forced).sum())


def _unknown_words(battle, tokenizer: Tokenizer) -> Counter:
    """The words of a battle that the vocabulary lacks, with their numbers: encoded again, with nothing unknown."""
    growing = GrowingTokenizer()
    words = Encoder("opponentmove", growing).encode(battle.states, battle.actions).words
    ids, counts = np.unique(words, return_counts=True)
    named = zip(growing.words_of(ids), counts.tolist(), strict=True)
    return Counter({word: n for word, n in named if word not in tokenizer})


def _table(counts: Counter, kind: str) -> dict[str, int]:
    found = {key[1]: n for key, n in counts.items() if isinstance(key, tuple) and key[0] == kind}
    return dict(sorted(found.items(), key=lambda item: (int(item[0]) if item[0].lstrip("-").isdigit() else 0, item[0])))


def stats_text(stats: dict[str, Any]) -> str:
    """The statistics as a table for a terminal."""
    turns, unknown, rejects = stats["turns"], stats["unknown_words"], stats["rejects"]
    decisions = max(1, sum(stats["actions"].values()))
    lines = [f"{stats['battles']:,} battles of {stats['files']:,} files, {turns['total']:,} turns", ""]
    for title in ("formats", "ratings", "years"):
        lines.append(title)
        lines += [f"  {name:<20} {n:>12,}" for name, n in stats[title].items()]
    lines.append("turns")
    lines.append(
        f"  mean {turns['mean']:.1f}, half under {turns['p50']:.0f}, 99% under {turns['p99']:.0f}, most {turns['max']}"
    )
    lines.append("actions")
    lines += [f"  {kind:<20} {n:>12,} {n / decisions:7.2%}" for kind, n in stats["actions"].items()]
    lines.append("results")
    lines += [f"  {name:<20} {n:>12,}" for name, n in stats["results"].items()]
    if stats["forfeit_wins"] is not None:  # no token cache tells
        lines.append(f"  won with opponents standing (forfeits) {stats['forfeit_wins']:,}")
        lines.append(f"  next battle's first state dropped {stats['dropped_tails']:,}")
    lines.append(f"unknown words {unknown['count']:,} ({unknown['share']:.4%})")
    lines += [f"  {word:<20} {n:>12,}" for word, n in unknown["most"].items()]
    lines.append(f"rejected files {rejects['count']:,}")
    lines += [f"  {reason:<20} {n:>12,}" for reason, n in rejects["by_reason"].items()]
    return "\n".join(lines)


def stats_png(stats: dict[str, Any], file: Path) -> None:
    """The statistics as a picture: lengths, formats, ratings, actions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained")
    figure.suptitle(f"{stats['battles']:,} battles, {stats['turns']['total']:,} turns")
    histogram = stats["turns"]["histogram"]
    panels[0, 0].bar(histogram["edges"], histogram["counts"], width=9, align="edge")
    panels[0, 0].set(title="turns of a battle", xlabel="turns", ylabel="battles")
    for panel, key, title in (
        (panels[0, 1], "formats", "battles by format"),
        (panels[1, 0], "ratings", "battles by rating"),
        (panels[1, 1], "actions", "decisions by kind"),
    ):
        panel.barh(list(stats[key]), list(stats[key].values()))
        panel.set_title(title)
        panel.invert_yaxis()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
