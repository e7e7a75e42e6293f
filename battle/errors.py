"""What can go wrong with play, each saying what to do about it."""

from __future__ import annotations


class BattleError(RuntimeError):
    """Base of everything this room raises on purpose."""


class NoSimulator(BattleError):  # noqa: N818 (names the finding)
    """Node or the npm package is missing, or the bridge does not start."""


class InvalidTeam(BattleError):  # noqa: N818
    """A team that Showdown's validator refuses; holds its words."""


class UnknownFormat(BattleError):  # noqa: N818
    """A format that this version of Showdown does not have, or that is no singles format of ours."""
