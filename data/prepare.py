"""Command line of the data room: `python -m data.prepare COMMAND …`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from .encode import EncodedBattle, Encoder
from .observation import SPACES
from .replay_file import MAX_BYTES, BadBattleFile, is_battle_file, read_battle, read_lean
from .schema import BadBattle
from .tokenizer import DEFAULT_PATH, GrowingTokenizer, Tokenizer

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 bad data, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="log what is being done")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_encode, _add_vocabulary):
        add(commands)
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        return options.run(options)
    except (BadBattle, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _add_encode(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("encode", help="print one battle file's observations, actions and rewards as JSON")
    parser.add_argument("file", type=Path)
    parser.add_argument("--space", choices=list(SPACES), default="default")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="cap on the decompressed size")
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
    except BadBattleFile:
        raise
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
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--base", type=Path, help="vocabulary whose ids are kept (default: --out, where it exists)")
    parser.add_argument("--fresh", action="store_true", help="keep no ids: every checkpoint's vocabulary then differs")
    parser.add_argument("--showdown", type=Path, help="folder of an installed pokemon-showdown package (for the items)")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="folders of battle files, for further words")
    parser.set_defaults(run=_vocabulary)


def _vocabulary(options: argparse.Namespace) -> int:
    # Imported here: it needs poke-env, which the other commands don't.
    from . import vocabulary

    base = options.base or (options.out if options.out.exists() and not options.fresh else None)
    kept = Tokenizer.load(base).words[2:] if base else []
    sources = [vocabulary.poke_env_words()]
    if options.showdown:
        sources.append(vocabulary.showdown_words(options.showdown))
    files = bad = 0
    for folder in options.corpus:
        if not folder.is_dir():
            raise ValueError(f"{folder}: is no folder of battle files; give one")
        for path in sorted(path for path in folder.rglob("*") if is_battle_file(path.name)):
            files += 1
            try:
                sources.append(vocabulary.words_of_battle(read_battle(path)))
            except BadBattleFile as error:
                bad += 1
                log.warning("left out: %s", error)
    tokenizer = Tokenizer(vocabulary.build(kept, *sources))
    tokenizer.save(options.out)
    print(
        f"{options.out}: {len(tokenizer)} words ({len(kept)} kept from {base}), {files} battle files read, {bad} bad, "
        f"hash {tokenizer.hash[:12]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
