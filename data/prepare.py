"""Command line of the data room: `python -m data.prepare COMMAND …`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .arguments import at_least_one
from .encode import ILLEGAL_RULES, EncodedBattle, Encoder
from .observation import SPACES
from .parallel import WorkerLost
from .replay_file import MAX_BYTES, BadBattleFile, read_lean
from .report_file import report_file, writable_folder, write_report
from .schema import BadBattle
from .terminal import silence_output, steady_output
from .tokenizer import DEFAULT_PATH, GrowingTokenizer, Tokenizer

log = logging.getLogger(__name__)
_BARRED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # not a disk that fails, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 bad data, 2 wrong use."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="log what is being done")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_encode,
        _add_vocabulary,
        _add_index,
        _add_cache,
        _add_stats,
        _add_list,
        _add_show,
        _add_verify,
        _add_download,
        _add_push,
    ):
        add(commands)
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        status = options.run(options)
        sys.stdout.flush()  # not at exit, where a reader that went away is an error
        return status
    except BrokenPipeError:
        silence_output()
        return 0
    except KeyboardInterrupt:
        kept = "what `cache`, `index --turns` and `download` have is kept, the same command goes on"
        print(f"stopped; {kept}", file=sys.stderr)
        return 130
    except (ValueError, OSError, WorkerLost) as error:  # a `BadBattle` is a ValueError
        print(f"error: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _written_in(folder: Path) -> Iterator[None]:
    """A full disk's error, which names no file, as one that names the folder that is written; that of a folder which
    nobody can write, a read-only one or one below a file, with its mend."""
    try:
        yield
    except (OSError, ValueError) as error:
        fault = error if isinstance(error, OSError) else error.__cause__
        kind, named = getattr(fault, "errno", None), getattr(fault, "filename", None)
        if kind in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(f"{folder}: {fault.strerror}: make room there, and give the same command again") from error
        file = Path(named or "")
        # Of folders above that are yet to be made the error names the highest.
        there = folder in (file, *file.parents) or (file in folder.parents and not file.exists())
        if named and there and kind in _BARRED:
            raise ValueError(
                f"{folder}: cannot be written ({fault.strerror}): make it writable, or give another"
            ) from error
        raise


def _add_encode(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("encode", help="print one battle file's observations, actions and rewards as JSON")
    parser.add_argument("file", type=Path)
    parser.add_argument("--space", choices=list(SPACES), default="default")
    parser.add_argument("--max-bytes", type=at_least_one, default=MAX_BYTES, help="cap on the decompressed size")
    parser.set_defaults(run=_encode)


def _encode(options: argparse.Namespace) -> int:
    json.dump(encode_report(options.file, options.space, options.max_bytes), sys.stdout)
    print()
    return 0


def encode_report(path: Path, space: str, max_bytes: int = MAX_BYTES) -> dict:
    """What `encode` prints: text, numbers, actions and rewards of one battle file, through the encoder itself.

    Raises:
        BadBattleFile: the file cannot be used.
    """
    tokenizer = GrowingTokenizer()
    battle = read_lean(path, max_bytes)
    try:
        encoded = Encoder(space, tokenizer).encode(battle.states, battle.actions)
    except BadBattle as error:
        raise BadBattleFile(path, error.field, error.reason, error.mend) from error
    return {
        "text": [" ".join(tokenizer.words_of(row)) for row in encoded.words],
        "numbers": [[float(value) for value in row] for row in encoded.numbers],
        "actions": actions_report(encoded),
        "rewards": {kind: [float(value) for value in values] for kind, values in encoded.rewards.items()},
    }


def actions_report(encoded: EncodedBattle) -> dict:
    """Chosen action, legal set and missing mask per decision (one fewer than states)."""
    chosen = encoded.action[:-1].tolist()
    return {
        "chosen": chosen,
        "legal": [[i for i, legal in enumerate(row) if legal] for row in encoded.legal[:-1].tolist()],
        "missing": [action < 0 for action in chosen],
    }


def _add_vocabulary(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("vocabulary", help="build the vocabulary from the game's data and battle files")
    parser.add_argument("--out", type=report_file, default=DEFAULT_PATH)
    parser.add_argument("--base", type=Path, help="vocabulary whose ids are kept (default: --out, where it exists)")
    parser.add_argument("--fresh", action="store_true", help="keep no ids: every checkpoint's vocabulary then differs")
    parser.add_argument("--showdown", type=Path, help="folder of an installed pokemon-showdown package (for the items)")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="folders of battle files, for further words")
    parser.set_defaults(run=_vocabulary)


def _vocabulary(options: argparse.Namespace) -> int:
    # Imported here: it needs poke-env, which the other commands don't.
    from . import vocabulary
    from .parallel import map_pieces

    base = options.base or (options.out if options.out.exists() and not options.fresh else None)
    kept = Tokenizer.load(base).words[2:] if base else []
    sources = [vocabulary.poke_env_words()]
    if options.showdown:
        sources.append(vocabulary.showdown_words(options.showdown))
    files, bad, corpus = 0, 0, set()
    for folder in options.corpus:
        paths, named = _battle_files(folder)
        files += len(paths) + len(named)
        left_out = [f"{path}: {reason}" for path, reason in named]
        for words, unread in map_pieces(vocabulary.words_of_files, paths, desc=f"words of {folder}"):
            corpus |= words
            left_out += unread
        for reason in left_out:
            log.warning("left out: %s", reason)
        bad += len(left_out)
    tokenizer = Tokenizer(vocabulary.build(kept, *sources, corpus))
    with _written_in(options.out):
        tokenizer.save(options.out)
    print(
        f"{options.out}: {len(tokenizer)} words ({len(kept)} kept{f' from {base}' if base else ''}), "
        f"{files} battle files, {bad} bad, "
        f"hash {tokenizer.hash[:12]}"
    )
    return 0


def _battle_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """The battle files under a folder by format, as the index finds them, and those left out for their names, each
    with its reason. Raises `DataError` where there is none."""
    from .folders import format_folders
    from .index import scan_format

    paths: list[str] = []
    bad: list[tuple[str, str]] = []
    for name, folder in format_folders(root.resolve()).items():
        table, bad_names = scan_format(name, folder, "")
        paths += [str(folder / file) for file in table["path"].to_pylist()]
        bad += [(str(folder / item.path), item.reason) for item in bad_names]
    return paths, bad


def _add_index(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("index", help="index a folder of battle files, with their lengths if asked")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--turns", action="store_true", help="read every file to know its number of turns")
    parser.add_argument(
        "--rescan", action="store_true", help="scan every folder, changed or not; with --turns read every file anew"
    )
    _add_common(parser)
    parser.set_defaults(run=_index)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=at_least_one, help="default: the number of cores")
    parser.add_argument("--cache-dir", help="where indexes are kept (default: TURNWISE_CACHE or ~/.cache/turnwise)")


def _index(options: argparse.Namespace) -> int:
    from .data_config import DataConfig
    from .index import open_index
    from .index_table import REJECTED_TURNS
    from .sources import fill_turns

    parts = open_index(options.dir, options.formats, options.cache_dir, options.rescan, options.processes)
    reasons: dict[str, str] = {}
    if options.turns:
        config = DataConfig(path=str(options.dir), cache_dir=options.cache_dir)
        parts, reasons = fill_turns(options.dir, parts, config, options.processes, anew=options.rescan)
    for part in parts:
        turns = part.table["turns"].to_numpy()
        known = turns[turns > REJECTED_TURNS]
        print(f"{part.format}: {len(turns):,} battles, {len(known):,} of known length ({known.sum():,} turns)")
        for item in part.bad_names:
            print(f"  left out {item.path}: {item.reason}")
    for path, reason in reasons.items():
        print(f"  rejected {path}: {reason}")
    return _status(options.dir, sum(len(part.table) for part in parts))


def _status(folder: Path, battles: int) -> int:
    """Of a command that counts what a folder holds: 1, with a word, where that is no battle."""
    if not battles:
        word = "no battle counted: they lie in DIR/FORMAT/*.json.lz4, and --filter may leave none"
        print(f"error: {folder}: {word}", file=sys.stderr)
    return 0 if battles else 1


def _add_cache(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("cache", help="make a token cache of battle files or archives")
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, help="folder, folder of archives, or archive"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--space", choices=list(SPACES), default="default")
    parser.add_argument("--vocabulary", help="vocabulary file (default: the one shipped)")
    parser.add_argument("--illegal-actions", choices=ILLEGAL_RULES, default="reject")
    parser.add_argument("--max-bytes", type=at_least_one, default=MAX_BYTES, help="cap on a battle's decompressed size")
    parser.add_argument("--battles-per-shard", type=int, default=4096)
    parser.add_argument("--shard", default="0/1", help="i/n: this machine's share of the work")
    parser.add_argument("--processes", type=at_least_one, help="default: the number of cores")
    parser.set_defaults(run=_cache)


def _cache(options: argparse.Namespace) -> int:
    from .cache import CacheJob, make_cache

    index, _, count = options.shard.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ValueError(f"--shard is {options.shard!r}; give i/n, as 0/4")
    job = CacheJob(
        source=str(options.source),
        out=str(options.out),
        formats=tuple(options.formats),
        space=options.space,
        vocabulary=options.vocabulary,
        illegal=options.illegal_actions,
        max_bytes=options.max_bytes,
        unit=options.battles_per_shard,
    )
    with _written_in(options.out):
        manifest = make_cache(job, options.processes, (int(index), int(count)))
    if manifest is None:
        print(f"{options.out}: this machine's share is done; other shares are missing")
        return 0
    print(
        f"{options.out}: {manifest['battles']:,} battles, {manifest['turns']:,} turns in {len(manifest['shards'])} "
        f"shards, {manifest['bytes'] / max(1, manifest['turns']):.0f} bytes a turn, "
        f"{manifest['rejects']['count']} rejected"
    )
    for path, reason in manifest["rejects"]["files"][:20]:
        print(f"  rejected {path}: {reason}")
    return 0


def _add_stats(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("stats", help="what a folder of battles, or a token cache, holds")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--filter", default="", help="battles for which an expression holds, as data.filter")
    parser.add_argument("--vocabulary", help="vocabulary file (default: the one shipped; a token cache has its own)")
    parser.add_argument("--json", type=report_file, help="also write the figures here")
    parser.add_argument("--png", type=report_file, help="also draw them here")
    _add_common(parser)
    parser.set_defaults(run=_stats)


def _stats(options: argparse.Namespace) -> int:
    from .stats import folder_stats, stats_png, stats_text

    stats = folder_stats(
        options.dir, options.formats, options.vocabulary, options.cache_dir, options.processes, chosen=options.filter
    )
    print(stats_text(stats))
    written = not options.json or write_report(options.json, json.dumps(stats, indent=1))
    if options.png:
        with _written_in(options.png):
            stats_png(stats, options.png)
    return _status(options.dir, stats["battles"]) if written else 1


def _add_list(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("list", help="name the battle files for which an expression holds; status 1: none")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--filter", default="", help="as data.filter; without it every battle")
    parser.add_argument("--cache-dir", help="where indexes are kept (default: TURNWISE_CACHE or ~/.cache/turnwise)")
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    from .listing import battle_names

    found = False
    for name in battle_names(options.dir, options.formats, options.filter, options.cache_dir):
        print(name)
        found = True
    return 0 if found else 1  # as grep does


def _add_show(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("show", help="print one battle, turn by turn")
    parser.add_argument("file", type=Path)
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> int:
    from .show import show_lines

    for line in show_lines(options.file):
        print(line)
    return 0


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("verify", help="check every file against the format; status 1 where any is bad")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--max-bytes", type=at_least_one, default=MAX_BYTES, help="cap on a battle's decompressed size")
    parser.add_argument("--processes", type=at_least_one, help="default: the number of cores")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from .cache_manifest import is_cache
    from .parallel import map_pieces
    from .verify import verify_cache, verify_files

    if is_cache(options.dir):
        findings = list(verify_cache(options.dir))
        for finding in findings:
            print(f"{finding.path}: {finding.field}: {finding.reason}")
        print(f"token cache, {len(findings)} bad files")
        return 1 if findings else 0
    paths, named = _battle_files(options.dir)
    for path, reason in named:
        print(f"{path}: {reason}")
    bad = len(named)
    total = len(paths) + bad
    work = partial(verify_files, max_bytes=options.max_bytes)
    for findings in map_pieces(work, paths, desc="verify", processes=options.processes):
        for finding in findings:
            if finding:
                bad += 1
                print(f"{finding.path}: {finding.field}: {finding.reason}")
    print(f"{total:,} files, {total - bad:,} sound, {bad:,} bad")
    return 1 if bad or not total else 0


def _add_download(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("download", help="fetch a public data set from the Hugging Face Hub")
    parser.add_argument("--repo", default="jakegrigsby/metamon-parsed-replays")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--formats", nargs="*", default=[])
    parser.add_argument("--subset", default="", help="folder in the repository, as pac-base of the pile")
    parser.add_argument("--to", type=writable_folder, required=True)
    parser.add_argument("--unpack", action="store_true", help="also unpack the archives beside themselves")
    parser.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> int:
    from .hub import download

    with _written_in(options.to):
        download(options.repo, options.revision, options.formats, options.to, options.subset, options.unpack)
    return 0


def _add_push(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("push", help="upload battles or a token cache to the Hugging Face Hub")
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--to", required=True, help="NAME/DATASET")
    parser.add_argument("--licence", required=True, help="as the Hub names it, e.g. cc-by-4.0")
    parser.add_argument("--public", action="store_true", help="a new repository is private without this")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    from .hub import push

    with _written_in(Path(tempfile.gettempdir())):  # battles are packed there
        print(push(options.source, options.to, options.licence, private=not options.public))
    return 0


if __name__ == "__main__":
    sys.exit(main())
