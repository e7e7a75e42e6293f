"""What a run says of its filter: when it decides nothing, and when it eats itself. The time left, and a profile."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainer.appending import whole_or_not
from trainer.metrics import (
    COMPARED_ROWS,
    FilterWarning,
    Profiler,
    Progress,
)
from trainer.objective import ObjectiveConfig

# Of the record `human_selfplay`, at steps 1, 100, 200, …, 1200: share kept, and the policy's value over the actions'.
GAMMAS = (0.9, 0.999)
STEPS = [1, 100, 200, 400, 600, 800, 1000, 1200]
BINARY = [0.60, 0.30, 0.33, 0.25, 0.20, 0.19, 0.16, 0.17], [-3.0, 17.3, 12.8, 20.5, 20.2, 24.4, 23.6, 23.6]
FLOOR = [0.60, 0.42, 0.44, 0.42, 0.45, 0.46, 0.46, 0.44], [-3.0, 6.5, 5.7, 12.2, 7.1, 8.2, 6.9, 7.1]


def warnings_of(caplog, config, kept, above, first=1):
    """What is said, row by row: (step, message)."""
    warning, said = FilterWarning(ObjectiveConfig(**config), GAMMAS), []
    for step in range(first, first + 1200, 10):
        caplog.clear()
        row = {"loss/total": 1.0, "optim/lr": 1e-3}
        for gamma in GAMMAS:
            row[f"filter/share_kept@{gamma}"] = float(np.interp(step - first + 1, STEPS, kept))
            row[f"value/policy_minus_data@{gamma}"] = float(np.interp(step - first + 1, STEPS, above))
        warning.check(row, step)
        said += [(step, record.getMessage()) for record in caplog.records]
    return said


def test_a_filter_that_eats_itself_is_said_once_for_each_discount(caplog):
    said = warnings_of(caplog, {"filter_warmup": 0}, *BINARY)
    assert [words.split("@")[1].split(" ")[0] for _, words in said] == ["0.9", "0.999"]
    assert "fell from 46% to " in said[0][1]
    assert "give objective.filter_floor" in said[0][1]
    assert said[0][0] < 700


@pytest.mark.parametrize(
    ("config", "kept", "above"),
    [
        ({"filter_warmup": 0}, *FLOOR),
        ({"filter_warmup": 0}, BINARY[0], [-1.0] * 8),  # fewer, for the recorded actions grow dear
        ({"filter_warmup": 5000}, *BINARY),  # nothing of it is the filter's doing
        ({"filter_warmup": 0, "filter": "imitation"}, *BINARY),
    ],
)
def test_another_course_of_the_shares_is_no_reason(caplog, config, kept, above):
    assert warnings_of(caplog, config, kept, above) == []


def test_of_a_policy_that_clones_everything_no_filter_is_said(caplog):
    said = warnings_of(caplog, {"filter_warmup": 0, "value_of": "behaviour"}, *BINARY)
    assert [words.split("@")[1].split(" ")[0] for _, words in said] == ["0.999"]


def test_the_first_rows_are_those_under_the_filter(caplog):
    """Those before it, of fresh critics, are nothing to compare with."""
    kept, steps = [0.9] * COMPARED_ROWS + [0.4] * 50, range(0, 600, 10)
    warning = FilterWarning(ObjectiveConfig(filter_warmup=10 * COMPARED_ROWS - 1), GAMMAS)
    for step, share in zip(steps, kept, strict=True):
        warning.check({"filter/share_kept@0.9": share, "value/policy_minus_data@0.9": 5.0}, step)
    assert not caplog.records


def test_a_filter_that_keeps_all_or_nothing_is_said_once(caplog):
    said = warnings_of(caplog, {"filter_warmup": 0}, [0.5, 0.5, 0.5, 0.995, 0.995, 0.995, 0.995, 0.995], [-1.0] * 8)
    assert len(said) == 2
    assert "outside 2–98%" in said[0][1]


def test_of_fresh_critics_before_the_filter_nothing_is_said(caplog):
    """Scalar ones begin with one value for all actions: said of them, it was not said again under the filter."""
    warning = FilterWarning(ObjectiveConfig(filter_warmup=100), GAMMAS)
    for step, share in ((1, 0.0), (100, 0.0), (101, 0.4), (110, 0.01)):
        warning.check({"filter/share_kept@0.9": share, "value/policy_minus_data@0.9": -1.0}, step)
    assert [record.getMessage()[:9] for record in caplog.records] == ["step 110:"]


def test_time_left_is_by_the_steps_done_here(caplog):
    """A run that goes on at step 40; going back from 60 to 50 it does ten of them again."""
    caplog.set_level("INFO")
    progress = Progress(total=100, start=40, gamma=0.9, enabled=True)
    row = {"loss/total": 1.0, "speed/battles_per_s": 2.0, "speed/turns_per_s": 3.0, "data/padding": 0.0}
    for step in (*range(41, 60), 60, 60, *range(51, 61)):
        progress.started = time.monotonic() - 59.5
        progress.update(step, row if step == 60 else None)
    progress.close()
    left = [record.getMessage().rsplit(", ", 1)[1] for record in caplog.records]
    assert left == ["2m00s left", "2m00s left", "1m20s left"]


@pytest.mark.parametrize(("wanted", "recorded"), [(0, []), (1, [1]), (2, [1, 2]), (9, [1, 2, 3, 4])])
def test_the_profiler_sees_the_steps_after_the_first(tmp_path, monkeypatch, wanted, recorded):
    """Of a run of five."""
    on, seen = [], []
    fake = SimpleNamespace(
        start=lambda: on.append(True), stop=on.clear, export_chrome_trace=lambda _: None,
        key_averages=lambda: SimpleNamespace(table=lambda **_: "table"),
    )  # fmt: skip
    monkeypatch.setattr(torch.profiler, "profile", lambda: fake)
    profiler = Profiler(wanted, tmp_path / "profile")
    for step in range(5):
        profiler.step_begins(step)
        seen += [step] if on else []
    profiler.close()
    assert (seen, on) == (recorded, [])
    assert (tmp_path / "profile" / "table.txt").exists() == bool(recorded)


def test_half_a_row_is_cut_off_again(tmp_path, caplog):
    """That of a file that is new, too."""
    for before in ("row\n", None):
        path = tmp_path / f"{before}.csv"
        if before:
            path.write_text(before)
        with whole_or_not(path), open(path, "a") as file:
            file.write("ha")
            file.flush()
            raise OSError(28, "No space left on device")
        assert path.read_text() == (before or "")
    assert caplog.text.count("No space left") == 2
