"""How good players are, from who beat whom: Wilson intervals, Bradley–Terry strengths as Elo, GXE."""

from __future__ import annotations

import math

import numpy as np

Z95 = 1.959964
ELO = 400 / math.log(10)


def wilson(wins: float, battles: int, z: float = Z95) -> tuple[float, float]:
    """Bounds of the Wilson score interval of a share; (0, 1) without battles. A tie counts as half a win."""
    if battles == 0:
        return 0.0, 1.0
    share = wins / battles
    middle = share + z * z / (2 * battles)
    spread = z * math.sqrt(share * (1 - share) / battles + z * z / (4 * battles * battles))
    scale = 1 + z * z / battles
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def bradley_terry(scores: np.ndarray, prior: float = 0.5) -> np.ndarray:
    """Elo-scaled strengths [n] with mean 1500 from scores [n, n] (scores[i, j]: what i made against j, ties half).

    The maximum-likelihood strengths of the Bradley–Terry model, by Newton's steps: the usual minorise-maximise ones
    hardly move where some are far above the rest. `prior` imaginary points for each side of every pair that met keep a
    player who won everything at a finite rating. NaN for one who met nobody, which the others' ratings do not heed.
    """
    met = (scores + scores.T) > 0
    rated = met.any(1)
    points = (scores + prior * met)[np.ix_(rated, rated)]
    games = points + points.T
    strength = np.full(len(points), 1500.0)
    for _ in range(1000):
        surplus = (points - games * expected_score(strength[:, None], strength[None, :])).sum(1)
        step = ELO * _covariance(games, strength) @ surplus
        largest = np.abs(step).max(initial=0.0)
        if largest < 1e-6:
            break
        strength += step * min(1.0, ELO / largest)  # the whole of a long one may lead beyond
    ratings = np.full(len(scores), np.nan)
    ratings[rated] = strength
    return ratings


def elo_margins(scores: np.ndarray, ratings: np.ndarray, prior: float = 0.5) -> np.ndarray:
    """Half widths of the 95% intervals of `bradley_terry(scores, prior=prior)`, in Elo; NaN where not rated. Battles
    count as independent."""
    rated = ~np.isnan(ratings)
    games = (scores + scores.T)[np.ix_(rated, rated)]
    games = games + 2 * prior * (games > 0)
    margins = np.full(len(ratings), np.nan)
    margins[rated] = Z95 * ELO * np.sqrt(np.diag(_covariance(games, ratings[rated])))
    return margins


def _covariance(games: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Of log strengths that are measured from their mean, with so many games of each pair: the pseudo-inverse of the
    likelihood's Fisher information (Hunter 2004, "MM algorithms for generalized Bradley–Terry models")."""
    chance = expected_score(ratings[:, None], ratings[None, :])
    weight = games * chance * chance.T
    # The cut keeps the one eigenvalue of 0, of all strengths together, from being inverted for its rounding error.
    return np.linalg.pinv(np.diag(weight.sum(1)) - weight, rcond=1e-10, hermitian=True)


def expected_score(rating: np.ndarray | float, other: np.ndarray | float) -> np.ndarray | float:
    """Chance to win that Elo gives `rating` against `other`."""
    return 1 / (1 + np.exp((other - rating) / ELO))


def gxe(ratings: np.ndarray) -> np.ndarray:
    """For each player the expected score against one drawn from the others of the pool, 0–1; NaN where not rated."""
    rated = np.flatnonzero(~np.isnan(ratings))
    found = np.full(len(ratings), np.nan)
    for i in rated:
        others = [expected_score(ratings[i], ratings[j]) for j in rated if j != i]
        found[i] = np.mean(others) if others else 0.5
    return found
