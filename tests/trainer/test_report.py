"""The report of runs: every picture from what was logged, several runs side by side, a page that fetches nothing."""

import base64
import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.chromium import tab
from trainer import figures
from trainer.card import RunFacts
from trainer.figures import PICTURES, RunLog, _label
from trainer.quick_score import BINS, calibration_gaps
from trainer.report import main, read_log, report_of_run, write_report
from trainer.scores import advantage_rows
from trainer.wording import duration


def test_a_run_leaves_its_report_with_every_picture(trained):
    page = (trained / "report.html").read_text()
    pictures = sorted(path.stem for path in (trained / "report").glob("*.png"))
    assert pictures == sorted(name for name, _, _, _ in PICTURES)
    inside = re.findall(r"src='data:image/png;base64,([^']+)'", page)
    assert [base64.b64decode(text) for text in inside] == [
        (trained / "report" / f"{name}.png").read_bytes() for name, _, _, _ in PICTURES
    ]
    result = json.loads((trained / "evaluation.json").read_text())
    assert f"<td>{100 * result['policy'][0]['top1'][0]:.1f} [" in page
    with open(trained / "training_log.csv", newline="") as handle:
        last = list(csv.DictReader(handle))[-1]
    assert f"<td>{duration(3600 * float(last['time/hours']))}</td>" in page


def test_half_a_file_is_named(tmp_path, capsys):
    (tmp_path / "training_log.csv").write_text("step,loss/total\n1,0.5\n")
    (tmp_path / "about.json").write_text('{"config": {')
    assert main([str(tmp_path)]) == 1
    assert f"{tmp_path / 'about.json'}: is not whole" in capsys.readouterr().err


def test_a_report_needs_no_torch():
    """Which takes several seconds to import, and a page of figures none."""
    code = "import sys, trainer.report; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_two_runs_stand_side_by_side_with_what_differs(trained, tmp_path, capsys):
    for name, lr in (("slow", 1e-4), ("fast", 1e-2)):
        shutil.copytree(trained, tmp_path / name)
        about = json.loads((tmp_path / name / "about.json").read_text())
        about["config"]["optim"]["lr"] = lr
        about["config"]["epochs"] = None if name == "slow" else 2.0
        if name == "slow":  # as a run of a version that had no such setting
            del about["config"]["model"]["act_beta"]
        (tmp_path / name / "about.json").write_text(json.dumps(about))
    assert main([str(tmp_path / "slow"), str(tmp_path / "fast"), "--out", str(tmp_path / "both")]) == 0
    page = (tmp_path / "both" / "report.html").read_text()
    assert str(tmp_path / "both" / "report.html") in capsys.readouterr().out
    assert "slow against fast" in page
    (row,) = re.findall(r"<tr><th>optim.lr</th><td>([^<]*)</td><td>([^<]*)</td></tr>", page)
    assert row == ("0.0001", "0.01")
    assert "<tr><th>epochs</th><td>null</td><td>2.0</td></tr>" in page
    assert "<tr><th>model.act_beta</th><td>–</td><td>0.0</td></tr>" in page
    assert "optim.weight_decay" not in page
    with open(trained / "training_log.csv", newline="") as file:
        logged = [float(row["speed/battles_per_s"]) for row in csv.DictReader(file) if row["speed/battles_per_s"]]
    assert f"{statistics.median(logged):,.1f}, the median of what was logged" in page
    assert main([str(tmp_path / "slow"), str(tmp_path / "fast")]) == 1  # would take the place of the first one's own
    assert "of 2 runs: give --out FOLDER" in capsys.readouterr().err
    # Two lines in one picture are another picture than one line.
    one, two = (folder / "report" / "losses.png" for folder in (tmp_path / "slow", tmp_path / "both"))
    assert one.read_bytes() != two.read_bytes()


def test_a_folders_name_is_no_mathematics_and_never_left_out():
    assert _label(RunLog("_mine", []), "training") == " _mine · training"
    assert _label(RunLog("a$b$c", []), None) == r"a\$b\$c"
    assert _label(RunLog("", []), "training") == "training"


def test_a_run_without_evaluation_has_the_pictures_that_it_can_have(tmp_path):
    (tmp_path / "training_log.csv").write_text(
        "step,loss/policy,loss/critic,loss/total,speed/battles_per_s\n1,2,3,5,9\n"
    )
    write_report([tmp_path])
    assert sorted(path.stem for path in (tmp_path / "report").iterdir()) == ["losses", "throughput"]


def test_half_a_row_that_a_killed_run_left_is_passed_over(tmp_path):
    """In the report and on the card, as it is at a resume."""
    (tmp_path / "training_log.csv").write_text("step,loss/total,speed/battles_per_s\r\n1,2.5,10\r\n2,2.25e-")
    assert main([str(tmp_path)]) == 0
    assert [row["step"] for row in read_log(tmp_path, "").rows] == ["1"]
    assert [row["step"] for row in RunFacts.of(tmp_path, tmp_path / "model").rows] == ["1"]


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys, caplog):
    assert main([str(tmp_path)]) == 1
    assert "training_log.csv" in capsys.readouterr().err
    report_of_run(tmp_path)  # at a run's end nothing is raised, but said
    assert "no report was made" in caplog.text


def test_a_folder_that_cannot_be_written_is_named_with_the_mend(tmp_path, capsys):
    (tmp_path / "training_log.csv").write_text("step,loss/total\n1,2.0\n")
    (tmp_path / "report").write_text("a file")
    assert main([str(tmp_path)]) == 1
    assert (
        f"error: {tmp_path / 'report'}: File exists: free some space or choose another --out" in capsys.readouterr().err
    )


def test_series_pass_over_rows_that_lack_a_value():
    run = RunLog("", [{"step": "1", "a": "0.5"}, {"step": "2", "a": ""}, {"step": "3", "a": "0.25"}])
    steps, values = run.series("a")
    assert (steps.tolist(), values.tolist()) == ([1, 3], [0.5, 0.25])
    assert len(run.series("b")[0]) == 0


def test_an_axis_of_powers_is_written_in_plain_numbers_and_in_its_colour(monkeypatch):
    """On the dark page too, where black is not seen."""
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, *_, **__: drawn.extend(figure.axes))
    rows = [{"step": str(step), "optim/lr": "0.001", "optim/grad_norm": str(norm)} for step, norm in ((1, 0.3), (2, 7))]
    figures.optimization([RunLog("", rows)])
    drawn[1].figure.canvas.draw()
    labels = [label for label in drawn[1].yaxis.get_ticklabels(which="both") if label.get_text()]
    assert {"0.5", "1", "2", "5"} <= {label.get_text() for label in labels}
    assert {label.get_color() for label in labels} == {figures.INK}


def test_advantages_are_counted_by_hand():
    rng = np.random.default_rng(0)
    advantages = rng.normal(0.5, 2.0, (1000, 1))
    legal = np.ones((1000, 13), dtype=bool)
    legal[:100, 1:] = False  # no choice: not counted
    (row,) = advantage_rows({"advantages": advantages, "legal": legal}, [0.99])
    counted = advantages[100:, 0]
    assert sum(row["counts"]) == 900
    assert row["above_0"] == pytest.approx((counted > 0).mean())
    low, high = row["edges"][20], row["edges"][21]
    assert row["counts"][20] == ((counted >= low) & (counted < high)).sum()
    assert row["counts"][0] >= (counted < row["edges"][0]).sum() > 0


def test_calibration_gaps_add_up_to_the_expected_error():
    # Beyond a sure loss or win, a critic says no more than that.
    values = np.array([[-150.0], [130.0], [0.0], [0.0], [60.0], [10.0]])
    outcome = np.array([0, 1, 1, 1, 0, -1])  # the last has no result
    *gaps, known = calibration_gaps({"values": values, "outcome": outcome}, 0, "shaped")
    assert len(gaps) == BINS
    assert known == 5
    # Chances 0, 1, 0.5, 0.5, 0.8 in bins 0, 9, 5, 5, 8.
    assert [gaps[i] for i in (0, 9, 5, 8)] == pytest.approx([0, 0, -1.0, 0.8])
    assert sum(map(abs, gaps)) / known == pytest.approx(1.8 / 5)


def test_the_page_opens_in_a_browser_and_fetches_nothing(trained, tmp_path):
    with tab(tmp_path) as window:
        for width, dark, phone in ((1100, False, False), (390, True, True)):
            window.shape(width, 900, dark=dark, phone=phone)
            window.open(trained / "report.html")
            sizes = window.ask("[...document.images].map((image) => image.naturalWidth)")
            assert len(sizes) == len(PICTURES)
            assert min(sizes) > 900
            assert window.ask("document.documentElement.scrollWidth") == width
        assert window.errors == []
        assert {address for address in window.fetched if not address.startswith("data:")} == {
            (trained / "report.html").as_uri()
        }
