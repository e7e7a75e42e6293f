"""Word-level tokenizer with a fixed vocabulary. A word it doesn't know maps to a reserved id; nothing is clamped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .replacing import replacing

PAD = "<pad>"
UNKNOWN = "<unknown>"
PAD_ID = 0
UNKNOWN_ID = 1
MAX_WORDS = 1 << 16  # ids are uint16
FORMAT = "turnwise-vocabulary"
DEFAULT_PATH = Path(__file__).parent / "vocabularies" / "default.json"


class Tokenizer:
    """Words ↔ ids. Id 0 pads shapes, id 1 stands for every unknown word; an observation's own words start at 2."""

    pad_id = PAD_ID
    unknown_id = UNKNOWN_ID

    def __init__(self, words: Iterable[str]) -> None:
        """
        Args:
            words: the vocabulary in id order, without the two reserved words.

        Raises:
            ValueError: a word twice, a reserved word, no text, with white space in it, or more words than ids.
        """
        self.words: list[str] = [PAD, UNKNOWN, *words]
        if len(self.words) > MAX_WORDS:
            raise ValueError(f"vocabulary: holds {len(self.words)} words, ids end at {MAX_WORDS - 1}; drop some")
        for word in self.words:
            if not isinstance(word, str) or not word or word.split() != [word]:
                raise ValueError(f"vocabulary: {word!r} is no word; words are texts without white space")
        self._ids = {word: i for i, word in enumerate(self.words)}
        if len(self._ids) != len(self.words):
            seen: set[str] = set()
            twice = next(word for word in self.words if word in seen or seen.add(word))
            raise ValueError(f"vocabulary: {twice!r} stands twice (or is reserved); keep one")

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Tokenizer:
        """Read a vocabulary file: ours, or the reference's `{"word": id}`. None: the one shipped.

        The reference's words keep their order, and their ids rise by the two that are reserved here.

        Raises:
            ValueError: the file is no vocabulary; the text says which file and what is wrong.
        """
        file = DEFAULT_PATH if path is None else Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{file}: cannot be read as a vocabulary ({error}); give a JSON file") from error
        try:
            return cls(_words_of(content))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON, whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        words = self.words[2:]
        body = json.dumps({"kind": FORMAT, "version": 1, "words": words}, ensure_ascii=False, indent=0)
        with replacing(target) as temporary:
            temporary.write_text(body + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    @property
    def hash(self) -> str:
        """SHA-256 over the words in id order, as hex: two tokenizers agree exactly when their hashes do."""
        return hashlib.sha256("\n".join(self.words).encode("utf-8")).hexdigest()

    def id(self, word: str) -> int:
        """The id of one word."""
        return self._ids.get(word, UNKNOWN_ID)

    def ids(self, words: Iterable[str]) -> np.ndarray:
        """The ids of words, uint16 [len(words)]."""
        return np.fromiter((self._ids.get(word, UNKNOWN_ID) for word in words), dtype=np.uint16)

    def words_of(self, ids: Iterable[int]) -> list[str]:
        """The words of ids."""
        return [self.words[int(i)] for i in ids]

    def packed(self) -> dict[str, bytes]:
        """Word → its id as two native-endian bytes; a word not there gives the unknown id (and isn't added)."""
        # Not the reserved two: text in a file must never become padding.
        return _Packed((word, i.to_bytes(2, _ENDIAN)) for word, i in self._ids.items() if i > UNKNOWN_ID)


_ENDIAN = "little" if np.little_endian else "big"
_UNKNOWN_BYTES = UNKNOWN_ID.to_bytes(2, _ENDIAN)


class _Packed(dict):
    def __missing__(self, word: str) -> bytes:
        return _UNKNOWN_BYTES


class GrowingTokenizer(Tokenizer):
    """Knows no word in advance and learns each that it meets: to get an observation's words back exactly."""

    def __init__(self) -> None:
        super().__init__(())

    def packed(self) -> dict[str, bytes]:
        """As `Tokenizer.packed`, but a new word gets the next id."""
        return _Growing(self)


class _Growing(dict):
    def __init__(self, owner: GrowingTokenizer) -> None:
        super().__init__()
        self._owner = owner

    def __missing__(self, word: str) -> bytes:
        owner = self._owner
        number = owner._ids.get(word)
        if number is None:
            number = len(owner.words)
            if number >= MAX_WORDS:
                raise ValueError(f"over {MAX_WORDS} different words in one battle: not a battle")
            owner.words.append(word)
            owner._ids[word] = number
        self[word] = value = number.to_bytes(2, _ENDIAN)
        return value


def _words_of(content: object) -> list[str]:
    if isinstance(content, Mapping) and content.get("kind") == FORMAT:
        words = content.get("words")
        if content.get("version") != 1 or not isinstance(words, list):
            raise ValueError("vocabulary: of another version; build it again with `python -m data.prepare vocabulary`")
        return words
    if isinstance(content, Mapping) and content and all(type(i) is int for i in content.values()):
        if len(set(content.values())) != len(content):
            raise ValueError("vocabulary: two words share an id; each word needs its own")
        ordered = sorted(content.items(), key=lambda item: item[1])
        return [word for word, _ in ordered if word not in (PAD, UNKNOWN)]
    raise ValueError('vocabulary: neither ours nor a {"word": id} table; give one of these')
