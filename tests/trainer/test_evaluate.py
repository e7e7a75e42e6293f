"""The evaluation's figures against plain loops, and its intervals and calibration against what they must do."""

import math

import numpy as np
import pytest

from tests.packs import inputs_of, random_pack, tiny_network
from trainer.evaluate import main
from trainer.scores import action_frequency, as_text, bootstrap, collect, fit_calibration, rank_of, report, value_rows


@pytest.fixture(scope="module")
def decisions():
    network = tiny_network()
    packs = [random_pack(96, seed=seed) for seed in range(3)]
    for i, pack in enumerate(packs):
        pack["windows"][: int(pack["segment"].max()) + 1, 0] = 100 * i + pack["segment"].unique()
        pack["forced"][10:20] = True
    return network, packs, collect(network, packs)


def test_columns_equal_a_plain_loop_over_the_turns(decisions):
    network, packs, columns = decisions
    row = 0
    for i, pack in enumerate(packs):
        out = network.eval()(**inputs_of(pack))
        for t in range(96):
            if not (pack["action_known"][t] and pack["decision"][t]):
                continue
            probs = out.logits[t, 2].double().softmax(-1)
            action = int(pack["action"][t])
            assert columns["nll"][row] == pytest.approx(-math.log(probs[action].item()), rel=1e-5)
            assert columns["rank"][row] == sum(p > probs[action] for p in probs)
            kind = 2 if pack["forced"][t] else 3 if action >= 9 else 1 if action >= 4 else 0
            assert columns["kind"][row] == kind
            assert columns["cloned"][row] == pack["cloned"][t]
            assert columns["row"][row] == 100 * i + int(pack["segment"][t])
            mean_q = out.q_values[t].double().mean(1) / 10.0
            value = (out.logits[t].double().softmax(-1) * mean_q).sum(-1)
            assert columns["values"][row] == pytest.approx(value.tolist(), rel=1e-4, abs=1e-4)
            row += 1
    assert row == len(columns["nll"])


def test_equal_scores_are_ranked_as_argmax_takes_them():
    scores = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [3.0, 1.0, 1.0]])
    assert rank_of(scores, np.array([0, 1, 2, 2])).tolist() == [0, 0, 1, 2]
    taken = np.arange(3)
    assert (rank_of(np.zeros((3, 3)), taken) == taken).all()


def test_report_groups_and_baselines_by_hand(decisions):
    _, _, columns = decisions
    frequency = action_frequency(columns)
    cloned = [a for a, own in zip(columns["action"], columns["cloned"], strict=True) if own]
    assert frequency == pytest.approx([(cloned.count(a) + 1) / (len(cloned) + 13) for a in range(13)])
    about = {r: {"format": "gen1ou" if r < 100 else "gen2ou", "battle_id": f"b-{r // 2}", "seen_team": r % 3 == 0}
             for r in np.unique(columns["row"]).tolist()}  # fmt: skip
    calibration = {"gammas": {}, "action_frequency": frequency.tolist()}
    result = report(columns, calibration, (0.9, 0.99, 0.999, 0.9999), 0.999, about)
    rows = {row["group"]: row for row in result["policy"]}
    chosen = [i for i in range(len(columns["nll"])) if columns["legal"][i].sum() >= 2 and columns["cloned"][i]]
    assert len(chosen) < sum(columns["legal"].sum(1) >= 2)
    assert rows["all"]["decisions"] == len(chosen)
    assert rows["all"]["nll"][0] == pytest.approx(np.mean([columns["nll"][i] for i in chosen]))
    assert rows["all"]["uniform_top1"][0] == pytest.approx(np.mean([1 / columns["legal"][i].sum() for i in chosen]))
    hits = []
    for i in chosen:
        slots = [frequency[a] if columns["legal"][i][a] else 0 for a in range(13)]
        hits.append(int(np.argmax(slots)) == columns["action"][i])
    assert rows["all"]["frequent_top1"][0] == pytest.approx(np.mean(hits))
    assert rows["format: gen1ou"]["decisions"] + rows["format: gen2ou"]["decisions"] == len(chosen)
    seen, unseen = rows["team seen in training"], rows["team unseen"]
    assert seen["decisions"] + unseen["decisions"] == len(chosen)
    assert "format: gen2ou" in as_text(result)


def test_one_battle_has_no_interval(decisions):
    """Its own mean over and over would pass for certainty."""
    _, _, columns = decisions
    about = {r: {"format": "gen1ou", "battle_id": "b-1" if r < 100 else f"b-{r}"} for r in set(columns["row"].tolist())}
    calibration = {"gammas": {}, "action_frequency": [1 / 13] * 13}
    one = {row: {**known, "battle_id": "b-1"} for row, known in about.items()}
    gammas = (0.9, 0.99, 0.999, 0.9999)
    lines = [as_text(report(columns, calibration, gammas, 0.999, told)).split("\n")[3] for told in (about, one)]
    assert all(line.startswith("all ") for line in lines)
    assert [(line.count("["), line.count("of one battle")) for line in lines] == [(3, 0), (0, 3)]
    assert len(lines[0]) == len(lines[1])


def test_a_file_that_cannot_be_written_is_refused_before_the_evaluation(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as end:
        main(["--checkpoint", "nobody's", "--data", "nowhere", "--out", str(tmp_path / "file" / "result.json")])
    assert end.value.code == 2
    assert "result.json': cannot be written: give another file" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 1], ids=["no decision", "one without a choice"])
def test_nothing_to_judge_is_said(decisions, kept):
    _, _, columns = decisions
    few = {name: column[:kept].copy() for name, column in columns.items()}
    few["legal"][:, 1:] = False
    about = {int(row): {"format": "gen1ou", "battle_id": "b-1"} for row in few["row"]}
    with pytest.raises(ValueError, match="no turn of the battles to judge"):
        report(few, {"gammas": {}, "action_frequency": [1 / 13] * 13}, (0.9, 0.99, 0.999, 0.9999), 0.999, about)


@pytest.mark.parametrize("drawn_at_once", [1, 100, 1 << 20])
def test_intervals_are_those_of_a_plain_loop(monkeypatch, drawn_at_once):
    monkeypatch.setattr("trainer.scores.MOST_DRAWN", drawn_at_once)
    rng = np.random.default_rng(2)
    units = np.sort(rng.integers(0, 7, 60))
    measures = {"x": rng.normal(size=60), "y": rng.random(60)}
    draws, means = np.random.default_rng(0), {"x": [], "y": []}
    for _ in range(1000):
        drawn = draws.integers(0, 7, 7)
        for name, values in measures.items():
            means[name].append(np.concatenate([values[units == unit] for unit in drawn]).mean())
    expected = {name: [measures[name].mean(), *np.percentile(one, [2.5, 97.5])] for name, one in means.items()}
    found = bootstrap(measures, units)
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert row == pytest.approx(expected[name], abs=1e-12)


def test_intervals_hold_whole_battles_together():
    """Forty copies of one decision in a battle are one observation: the interval must not shrink with them."""
    rng = np.random.default_rng(1)
    per_battle = rng.normal(size=50)
    once = bootstrap({"x": per_battle}, np.arange(50))["x"]
    copied = bootstrap({"x": np.repeat(per_battle, 40)}, np.repeat(np.arange(50), 40))["x"]
    assert copied == pytest.approx(once)
    naive = bootstrap({"x": np.repeat(per_battle, 40)}, np.arange(2000))["x"]
    assert (naive[2] - naive[1]) < 0.3 * (once[2] - once[1])
    standard_error = per_battle.std() / math.sqrt(50)
    assert once[2] - once[1] == pytest.approx(2 * 1.96 * standard_error, rel=0.2)


def test_calibration_finds_the_logistic_law_that_made_the_outcomes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20_000, 1)) * 30
    chance = 1 / (1 + np.exp(-(0.05 * values[:, 0] - 0.4)))
    data = {"values": values, "outcome": (rng.random(20_000) < chance).astype(int)}
    data["outcome"][:500] = -1
    fitted = fit_calibration(data, [0.999])
    assert fitted["0.999"]["slope"] == pytest.approx(0.05, rel=0.1)
    assert fitted["0.999"]["intercept"] == pytest.approx(-0.4, abs=0.08)
    (row,) = value_rows(data, [0.999], fitted)
    assert row["decisions"] == 19_500
    assert row["auc"] > 0.8
    assert all(abs(expected - seen) < 0.06 for expected, seen, _ in row["deciles"])
    assert value_rows({"values": values, "outcome": np.ones(20_000, int)}, [0.999], fitted) == []
