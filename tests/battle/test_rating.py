"""Ratings: intervals, Bradley–Terry strengths and their margins, against known values and simulated tournaments."""

import numpy as np
import pytest

from battle.rating import bradley_terry, elo_margins, expected_score, gxe, wilson


def test_wilson_against_known_values():
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 0) == (0.0, 1.0)
    # No share is below 0 or above 1, be it by a rounding error.
    for battles in range(1, 200):
        assert wilson(0, battles)[0] >= 0.0
        assert wilson(battles, battles)[1] <= 1.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_bradley_terry_finds_the_strengths_that_made_the_scores():
    truth = np.array([1700.0, 1500.0, 1300.0])
    chance = np.array([[expected_score(a, b) for b in truth] for a in truth])
    scores = 10_000 * chance
    np.fill_diagonal(scores, 0)
    found = bradley_terry(scores, prior=0.0)
    assert np.allclose(found, truth, atol=0.5)
    assert gxe(found) == pytest.approx([(chance[i].sum() - 0.5) / 2 for i in range(3)], abs=1e-3)


def test_one_who_won_everything_has_a_finite_rating():
    found = bradley_terry(np.array([[0.0, 10.0], [0.0, 0.0]]))
    assert np.isfinite(found).all()
    assert found[0] > found[1]


@pytest.mark.parametrize(("players", "battles"), [(2, 10_000), (5, 500), (12, 2000)])
def test_players_far_above_one_another_are_rated_by_what_they_made(players, battles):
    """The stronger always won. At the likeliest strengths everybody's expected points are those that they made."""
    scores = np.triu(np.full((players, players), float(battles)), 1)
    found = bradley_terry(scores)
    points = scores + 0.5 * (1 - np.eye(players))
    expected = (points + points.T) * expected_score(found[:, None], found[None, :])
    assert expected.sum(1) == pytest.approx(points.sum(1), abs=1e-3)
    assert np.mean(found) == pytest.approx(1500.0)


def test_imagined_points_are_of_pairs_that_met():
    """The middle one of three met both others, 3 to 1 down the line; these two never met: nothing is imagined of it.
    With half a point for either side of a pair that is 3.5 to 1.5, and along the line strengths add up."""
    scores = np.array([[0.0, 3.0, 0.0], [1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    step = 400 * np.log10(3.5 / 1.5)
    assert bradley_terry(scores) == pytest.approx([1500 + step, 1500.0, 1500 - step], abs=0.1)
    # One pair's margin is that of a difference d from its mean, d/2: the deviation of log odds is 1/√(n·p·(1−p)).
    two, p = np.array([[0.0, 3.0], [1.0, 0.0]]), 0.7
    margin = 1.96 * 400 / np.log(10) / np.sqrt(5 * p * (1 - p)) / 2
    assert elo_margins(two, bradley_terry(two)) == pytest.approx([margin, margin], rel=1e-3)
    # A line of three: the ends are measured from the mean of all.
    end = np.sqrt(4 / 9 + 1 / 9) * 2 * margin
    assert elo_margins(scores, bradley_terry(scores))[[0, 2]] == pytest.approx([end, end], rel=1e-3)


def test_one_who_met_nobody_is_not_rated_and_one_alone_is_even():
    scores = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    ratings = bradley_terry(scores)
    assert np.isnan(ratings).tolist() == [False, True, False]
    assert ratings[[0, 2]] == pytest.approx(bradley_terry(scores[np.ix_([0, 2], [0, 2])]))
    for found in (elo_margins(scores, ratings), gxe(ratings)):
        assert np.isnan(found).tolist() == [False, True, False]
    assert gxe(np.array([np.nan, 1700.0])).tolist()[1] == 0.5
    nobody = np.zeros((2, 2))
    assert np.isnan([bradley_terry(nobody), elo_margins(nobody, bradley_terry(nobody))]).all()


def test_margins_are_how_far_ratings_scatter_from_one_tournament_to_the_next():
    truth, battles = np.array([1750.0, 1550.0, 1450.0, 1250.0]), 60
    chance = np.array([[expected_score(a, b) for b in truth] for a in truth])
    rng = np.random.default_rng(0)

    def tournament(n: float | None = None):
        wins = np.triu(rng.binomial(battles, chance) if n is None else n * chance, 1)
        return wins + np.tril((battles if n is None else n) - wins.T, -1)

    scatter = 1.96 * np.std([bradley_terry(tournament()) for _ in range(400)], axis=0)
    assert np.allclose(elo_margins(tournament(battles), truth), scatter, rtol=0.12)
    assert np.all(elo_margins(tournament(4 * battles), truth) < 0.55 * scatter)


def test_margins_of_many_players_are_no_rounding_errors():
    """The one strength that nobody can know, everybody's together, has an eigenvalue of 0 that comes out as 1e-14."""
    rng = np.random.default_rng(1)
    for number in (8, 10, 11, 12, 20, 30):
        for _ in range(40):
            strength = rng.normal(1500, 200, number)
            chance = expected_score(strength[:, None], strength[None, :])
            wins = np.triu(rng.binomial(rng.integers(5, 500), chance), 1)
            scores = wins + np.tril(rng.binomial(300, chance), -1)
            margins = elo_margins(scores, bradley_terry(scores))
            assert np.all((margins > 5) & (margins < 500))
