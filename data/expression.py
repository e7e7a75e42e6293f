"""Small expressions over the columns of an index: filters (`rating >= 1500 and date >= '2020'`) and weights
(`2.0 if won else 1.0`). Parsed, never run as Python; evaluated a column at a time.

Names: `format`, `battle_id`, `player`, `opponent`, `date` (ISO text), `rating`, `size`, `turns` (where known; 0 for
a file that cannot be read), `won`, and `year`.
Allowed: numbers, texts, True and False, `and or not`, comparisons (chained too), `in` a tuple of constants, `+ - * /`,
`a if condition else b`, `min(…)`, `max(…)`.
"""

from __future__ import annotations

import ast
import re
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .folders import DataError
from .index_table import REJECTED_TURNS, UNKNOWN_TURNS

_TEXTS = ("format", "battle_id", "player", "opponent", "date")
_NUMBERS = ("rating", "size", "turns", "won")
NAMES = (*_TEXTS, *_NUMBERS, "year")
_ARITHMETIC = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide}
_COMPARE = {
    ast.Eq: ("equal", np.equal),
    ast.NotEq: ("not_equal", np.not_equal),
    ast.Lt: ("less", np.less),
    ast.LtE: ("less_equal", np.less_equal),
    ast.Gt: ("greater", np.greater),
    ast.GtE: ("greater_equal", np.greater_equal),
}
MAX_LENGTH = 2_000
_ISO = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9:]*)?)?)?", re.ASCII)
_Value = np.ndarray | pa.ChunkedArray | str | float | bool


def filter_mask(text: str, table: pa.Table, where: str) -> np.ndarray:
    """Rows for which the expression holds, bool [rows].

    Args:
        text: the expression; empty: every row.
        table: rows of an index.
        where: the configuration key, for errors.

    Raises:
        DataError: the expression cannot be read, or doesn't give true or false.
    """
    if not text.strip():
        return np.ones(len(table), dtype=bool)
    value = np.asarray(_evaluate(text, table, where))
    if value.dtype != bool:
        raise DataError(f"{where}: {text!r} gives numbers, not true or false; compare them with something")
    return np.broadcast_to(value, len(table))


def weights(text: str, table: pa.Table, where: str, rows: np.ndarray) -> np.ndarray:
    """A weight for each of `rows`, float64 [len(rows)], finite and not negative: 1 where the expression is empty, and 0
    for a file that cannot be read, which has no turns to weigh it by.

    Raises:
        DataError: the expression cannot be read, or a weight is negative or not finite.
    """
    value = _evaluate(text, table, where) if text.strip() else 1.0
    if isinstance(value, (str, pa.ChunkedArray)):
        raise DataError(f"{where}: {text!r} gives text; a weight is a number")
    found = np.broadcast_to(np.asarray(value, dtype=np.float64), len(table))[rows]
    found = np.where(table["turns"].to_numpy()[rows] == REJECTED_TURNS, 0.0, found)
    if not (np.isfinite(found) & (found >= 0)).all():
        raise DataError(f"{where}: {text!r} gives a weight that is negative or not finite; keep it at 0 or above")
    return found


def _evaluate(text: str, table: pa.Table, where: str) -> _Value:
    if len(text) > MAX_LENGTH:
        raise DataError(f"{where}: is {len(text)} characters long; keep it under {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: {text!r} is no expression ({error}); e.g. rating >= 1500 and won") from error
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            return _Evaluation(table, where).value(tree)
    except (pa.ArrowException, TypeError, RecursionError) as error:
        raise DataError(f"{where}: {text!r} cannot be evaluated ({error}); compare texts with texts") from error


class _Evaluation:
    def __init__(self, table: pa.Table, where: str) -> None:
        self.table = table
        self.where = where

    def value(self, node: ast.AST) -> _Value:
        """The value of a node, for all rows at once."""
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return constant
            case ast.Name(id=name):
                return self._column(name)
            case ast.BoolOp(op=ast.And(), values=parts):
                return reduce(np.logical_and, [self._truth(part) for part in parts])
            case ast.BoolOp(op=ast.Or(), values=parts):
                return reduce(np.logical_or, [self._truth(part) for part in parts])
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                return np.logical_not(self._truth(inner))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return np.negative(self._number(inner))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](self._number(left), self._number(right))
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [left, *others]
                found = [self._compare(sides[i], op, sides[i + 1]) for i, op in enumerate(ops)]
                return reduce(np.logical_and, found)
            case ast.IfExp(test=test, body=body, orelse=other):
                sides = [self._no_text(body), self._no_text(other)]
                if any(side.dtype != bool for side in sides):  # else a condition, as a filter wants it
                    sides = [side.astype(np.float64) for side in sides]
                return np.where(self._truth(test), *sides)
            case ast.Call(func=ast.Name(id="min" | "max" as name), args=[_, _, *_] as parts, keywords=[]):
                joined = np.minimum if name == "min" else np.maximum
                return reduce(joined, [self._number(part) for part in parts])
        raise self._refused(node)

    def _column(self, name: str) -> _Value:
        if name == "year":
            return pc.cast(pc.utf8_slice_codeunits(self.table["date"], 0, 4), pa.int32()).to_numpy()
        if name in _TEXTS:
            return self.table[name]
        if name in _NUMBERS:
            column = self.table[name].to_numpy()
            if name == "turns" and (unknown := int((column == UNKNOWN_TURNS).sum())):
                raise DataError(
                    f"{self.where}: 'turns' is not known of {unknown:,} of {len(column):,} battles: set "
                    "data.turns=always, or run `data.prepare index --turns`, which reads each once"
                )
            return column
        raise DataError(f"{self.where}: {name!r} is no column; there are {', '.join(NAMES)}")

    def _truth(self, node: ast.AST) -> np.ndarray:
        value = self.value(node)
        found = np.asarray(value) if not isinstance(value, (str, pa.ChunkedArray)) else None
        if found is None or found.dtype != bool:
            raise DataError(f"{self.where}: {ast.unparse(node)!r} is neither true nor false; compare it with something")
        return found

    def _number(self, node: ast.AST) -> np.ndarray:
        return self._no_text(node).astype(np.float64)

    def _no_text(self, node: ast.AST) -> np.ndarray:
        value = self.value(node)
        if isinstance(value, (str, pa.ChunkedArray)):
            raise DataError(f"{self.where}: {ast.unparse(node)!r} is a text, where a number is needed")
        return np.asarray(value)

    def _compare(self, left: ast.AST, op: ast.cmpop, right: ast.AST) -> np.ndarray:
        if "date" in (getattr(side, "id", "") for side in (left, right)):
            self._check_dates((*ast.walk(left), *ast.walk(right)))
        if {"player", "opponent"} & {getattr(side, "id", "") for side in (left, right)}:
            self._check_names((*ast.walk(left), *ast.walk(right)))
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.Tuple, ast.List)) or not all(isinstance(e, ast.Constant) for e in right.elts):
                raise DataError(
                    f"{self.where}: what follows 'in' is {ast.unparse(right)!r} and no list of constants; give one, as "
                    "format in ['gen1ou', 'gen2ou'], or == for a single one"
                )
            value, options = self.value(left), [element.value for element in right.elts]
            if any(isinstance(option, str) != isinstance(value, (str, pa.ChunkedArray)) for option in options):
                raise self._mixed(left)
            if isinstance(value, pa.ChunkedArray):
                found = pc.is_in(value, value_set=pa.array(options, pa.string())).to_numpy()
            else:
                found = np.isin(np.asarray(value), np.array(options))
            return ~found if isinstance(op, ast.NotIn) else found
        if type(op) not in _COMPARE:
            raise self._refused(op)
        name, compare = _COMPARE[type(op)]
        a, b = self.value(left), self.value(right)
        texts = [isinstance(side, (str, pa.ChunkedArray)) for side in (a, b)]
        if texts[0] != texts[1]:
            raise self._mixed(left)
        if not texts[0]:
            return compare(np.asarray(a), np.asarray(b))
        found = getattr(pc, name)(a, b)
        return found.to_numpy() if isinstance(found, pa.ChunkedArray) else np.asarray(found.as_py())

    def _check_dates(self, nodes: tuple[ast.AST, ...]) -> None:
        """Dates compare as texts, where '11-22-2026', as files are named, is before every one."""
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _ISO.fullmatch(node.value):
                raise DataError(f"{self.where}: {node.value!r} is no date of the index's form; give 2026-11-22 or 2026")

    def _check_names(self, nodes: tuple[ast.AST, ...]) -> None:
        """A file's name is split at `_`, so no player's holds one: `type_switch` is recorded as `typeswitch`."""
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "_" in node.value:
                raise DataError(
                    f"{self.where}: no player in a file's name is called {node.value!r}: names there have no '_'; give "
                    f"{node.value.replace('_', '')!r}"
                )

    def _mixed(self, node: ast.AST) -> DataError:
        return DataError(
            f"{self.where}: compares a text with a number in {ast.unparse(node)!r}; quote texts, and numbers not"
        )

    def _refused(self, node: ast.AST) -> DataError:
        shown = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
        return DataError(
            f"{self.where}: {shown!r} is not allowed; use columns ({', '.join(NAMES)}), constants, comparisons, "
            "and/or/not, + - * /, if/else, min, max"
        )
