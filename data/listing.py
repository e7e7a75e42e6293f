"""Which battles of a folder, or of a token cache, an expression holds for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .cache_manifest import is_cache
from .expression import filter_mask
from .index import FormatIndex, open_index
from .token_cache import TokenCache

FILTER = "--filter"  # in messages about it


def battle_names(
    root: Path, formats: Sequence[str] = (), chosen: str = "", cache_dir: str | None = None
) -> Iterator[str]:
    """The files below `root` whose battles the expression `chosen` holds for, by format and name; of a token cache the
    names that its battles had.

    Raises:
        DataError: nothing to read there, a format that is not there, an expression that cannot be evaluated.
    """
    if is_cache(root):
        cache = TokenCache(root)
        yield from _texts(cache.table["path"].take(pa.array(cached_rows(cache, formats, chosen))))
    else:  # a folder of one format is named by its own name, also from within
        for path in chosen_paths(open_index(root.resolve(), formats, cache_dir), chosen):
            yield os.path.join(root, path)


def chosen_paths(parts: Sequence[FormatIndex], chosen: str) -> Iterator[str]:
    """Paths, from their root on, of the files of an index that an expression holds for. Raises DataError, before the
    first of them."""
    masks = [filter_mask(chosen, part.table, FILTER) for part in parts]
    for part, mask in zip(parts, masks, strict=True):
        yield from _texts(part.table["path"].filter(mask))


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    """Piece by piece: four million names as Python's texts are half a gigabyte."""
    for chunk in column.chunks:
        yield from chunk.to_pylist()


def cached_rows(cache: TokenCache, formats: Sequence[str], chosen: str) -> np.ndarray:
    """Rows int64 [n] of a cache's battles of the formats (none named: all) that an expression holds for. Raises
    DataError."""
    cache.check_formats(formats)
    mask = filter_mask(chosen, cache.table, FILTER)
    if formats:
        mask = mask & pc.is_in(cache.table["format"], value_set=pa.array(formats)).to_numpy()
    return np.flatnonzero(mask)
