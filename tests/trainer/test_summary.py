from types import SimpleNamespace

import pytest

from trainer.objective import ObjectiveConfig
from trainer.summary import warn_of_short_reach


@pytest.mark.parametrize(
    ("steps", "settings", "said"),
    [
        (2_499, {}, "by about 10.0 turns, and battles are 20 long"),  # 1/tau = 250 steps a turn
        (2_500, {}, None),
        (62, {"n_step": 8, "tau": 0.02}, "by about 9.9 turns"),
        (63, {"n_step": 8, "tau": 0.02}, None),
        (200, {"filter": "imitation"}, None),  # no critic decides
        (200, {"filter": "winners"}, None),
        (200, {"filter": "imitation", "maxq_weight": 1.0}, "by about 0.8 turns"),
        (200, {"filter": "exponential"}, "by about 0.8 turns"),
    ],
)
def test_a_run_too_short_for_its_critics_is_said(caplog, steps, settings, said):
    warn_of_short_reach(ObjectiveConfig(**settings), steps, SimpleNamespace(mean_window=lambda: 20.0))
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == (said is not None)
    assert said is None or said in words[0]
