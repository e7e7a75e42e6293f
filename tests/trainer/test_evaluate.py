"""The evaluation's figures against plain loops, and its intervals and calibration against what they must do."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.packs import inputs_of, random_pack, tiny_network
from trainer import heldout, quick_score
from trainer.evaluate import main
from trainer.quick_score import QuickScore
from trainer.scores import (
    KINDS,
    action_frequency,
    as_text,
    bootstrap,
    collect,
    fit_calibration,
    rank_of,
    report,
    value_rows,
)


@pytest.fixture(scope="module")
def decisions():
    network = tiny_network()
    packs = [random_pack(96, seed=seed) for seed in range(3)]
    for i, pack in enumerate(packs):
        pack["windows"][: int(pack["segment"].max()) + 1, 0] = 100 * i + pack["segment"].unique()
        pack["forced"][10:20] = True
        alone = (pack["action_known"] & pack["cloned"]).nonzero().flatten()[4:8]  # the only legal action: no choice
        pack["legal"][alone] = torch.nn.functional.one_hot(pack["action"][alone], 13).bool()
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
            assert columns["advantages"][row] == pytest.approx((mean_q[:, action] - value).tolist(), rel=1e-4, abs=1e-3)
            assert (columns["action"][row], columns["outcome"][row]) == (action, pack["outcome"][t])
            assert columns["legal"][row].tolist() == pack["legal"][t].tolist()
            row += 1
    assert row == len(columns["nll"])
    other = collect(network, packs, 0.9)["nll"]
    assert other[0] == pytest.approx(
        -network(**inputs_of(packs[0]))
        .logits[:, 0]
        .log_softmax(-1)[(packs[0]["action_known"] & packs[0]["decision"]).nonzero()[0, 0], columns["action"][0]]
        .item(),
        rel=1e-5,
    )


def test_decisions_are_taken_without_dropout_and_the_network_left_as_it_was():
    network, pack = tiny_network(dropout=0.5).train(), random_pack(96)
    once, twice = (collect(network, [pack])["nll"] for _ in range(2))
    assert np.array_equal(once, twice)
    assert network.training
    collect(network.eval(), [pack])
    assert not network.training


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
    about = {}
    for r in np.unique(columns["row"]).tolist():
        name, maker = "gen1ou" if r < 100 else "gen2ou", "metamon" if r < 200 else "battle"
        about[r] = {"format": name, "battle_id": f"{maker}-{name}-{r // 2}", "seen_team": r % 3 == 0}
    calibration = {"gammas": {}, "action_frequency": frequency.tolist()}
    result = report(columns, calibration, (0.9, 0.99, 0.999, 0.9999), 0.999, about)
    rows = {row["group"]: row for row in result["policy"]}
    chosen = [i for i in range(len(columns["nll"])) if columns["legal"][i].sum() >= 2 and columns["cloned"][i]]
    assert len(chosen) < sum(columns["legal"].sum(1) >= 2)
    assert rows["all"]["decisions"] == len(chosen)
    assert rows["all"]["nll"][0] == pytest.approx(np.mean([columns["nll"][i] for i in chosen]))
    assert rows["all"]["uniform_top1"][0] == pytest.approx(np.mean([1 / columns["legal"][i].sum() for i in chosen]))
    assert rows["all"]["uniform_nll"][0] == pytest.approx(np.mean([np.log(columns["legal"][i].sum()) for i in chosen]))
    for measure, places in (("top1", 1), ("top3", 3)):
        assert rows["all"][measure][0] == pytest.approx(np.mean([columns["rank"][i] < places for i in chosen]))
    hits, nll = [], []
    for i in chosen:
        slots = np.array([frequency[a] if columns["legal"][i][a] else 0 for a in range(13)])
        hits.append(int(np.argmax(slots)) == columns["action"][i])
        nll.append(-np.log(slots[columns["action"][i]] / slots.sum()))
    assert rows["all"]["frequent_top1"][0] == pytest.approx(np.mean(hits))
    assert rows["all"]["frequent_nll"][0] == pytest.approx(np.mean(nll))
    # Both views of a battle, rows 2k and 2k + 1 here, are one unit.
    assert rows["all"]["battles"] == len({columns["row"][i] // 2 for i in chosen})
    members = {f"kind: {kind}": columns["kind"] == i for i, kind in enumerate(KINDS)}
    members |= {"id prefix: metamon": columns["row"] < 200, "id prefix: battle": columns["row"] >= 200}
    members |= {"format: gen1ou": columns["row"] < 100, "team seen in training": columns["row"] % 3 == 0}
    for group, of_it in members.items():
        mine = [i for i in chosen if of_it[i]]
        assert rows[group]["decisions"] == len(mine) > 0, group
        assert rows[group]["nll"][0] == pytest.approx(np.mean([columns["nll"][i] for i in mine])), group
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
    values = rng.normal(size=(20_000, 2)) * 30  # the other discount's know nothing
    chance = 1 / (1 + np.exp(-(0.05 * values[:, 1] - 0.4)))
    data = {"values": values, "outcome": (rng.random(20_000) < chance).astype(int)}
    data["outcome"][:500] = -1
    fitted = fit_calibration(data, [0.9, 0.999])
    assert fitted["0.9"]["slope"] == pytest.approx(0.0, abs=0.002)
    assert fitted["0.999"]["slope"] == pytest.approx(0.05, rel=0.1)
    assert fitted["0.999"]["intercept"] == pytest.approx(-0.4, abs=0.08)
    nothing, row = value_rows(data, [0.9, 0.999], fitted, np.arange(20_000) // 2)
    assert row["battles"] == 9_750
    assert nothing["auc"] == pytest.approx(0.5, abs=0.02)
    assert row["decisions"] == 19_500
    assert row["auc"] > 0.8
    assert all(abs(expected - seen) < 0.06 for expected, seen, _ in row["deciles"])
    told = [expected for expected, _, _ in row["deciles"]]
    assert told == sorted(told)
    assert told[-1] - told[0] > 0.8
    assert [count for _, _, count in row["deciles"]] == [1950] * 10
    assert row["brier"] == pytest.approx(((chance - data["outcome"])[500:] ** 2).mean(), rel=0.01)
    one_sided = {"values": values, "outcome": np.ones(20_000, int)}
    assert value_rows(one_sided, [0.9, 0.999], fitted, np.arange(20_000)) == []


def test_the_area_and_its_interval_are_those_of_a_plain_loop():
    """Values with ties, and both views of a battle together: the area pair by pair, and its spread over battles drawn
    again and again."""
    rng = np.random.default_rng(3)
    battles = 10 + rng.integers(0, 60, 400)
    outcome = np.where(battles % 3 == 0, rng.integers(0, 2, 400), battles % 2)  # both views of some
    values = np.round(rng.normal(size=(400, 1)) + 0.7 * outcome[:, None], 1).astype(np.float32)
    outcome[:5] = -1
    data = {"values": values, "outcome": outcome}
    row, *none = value_rows(data, [0.9], {"0.9": {"slope": 1.5, "intercept": -0.5}}, battles)
    assert none == []
    told = {True: [], False: []}
    for value, won in zip(values[5:, 0].tolist(), outcome[5:] == 1, strict=True):
        told[bool(won)].append(value)
    pairs = [(a > b) + (a == b) / 2 for a in told[True] for b in told[False]]
    assert row["auc"] == pytest.approx(np.mean(pairs))
    of = [[i for i in range(5, 400) if battles[i] == battle] for battle in sorted(set(battles[5:]))]
    assert (row["battles"], row["decisions"]) == (len(of), 395)
    chances = 1 / (1 + np.exp(-(1.5 * values[:, 0].astype(float) - 0.5)))
    areas, briers = [], []
    for _ in range(1000):
        drawn = [i for unit in rng.integers(0, len(of), len(of)) for i in of[unit]]
        areas.append(roc_auc_score(outcome[drawn], values[drawn, 0]))
        briers.append(((chances[drawn] - outcome[drawn]) ** 2).mean())
    assert row["auc95"] == pytest.approx(np.percentile(areas, [2.5, 97.5]), abs=0.006)
    assert row["brier95"] == pytest.approx(np.percentile(briers, [2.5, 97.5]), abs=0.006)
    assert row["auc95"][1] - row["auc95"][0] > 0.1  # beside which those bounds are small
    one = value_rows({"values": values[5:], "outcome": outcome[5:]}, [0.9], {}, np.zeros(395, int))
    assert one[0]["battles"] == 1
    values[7] = np.nan
    with pytest.raises(ValueError, match=r"V at γ = 0.9 is not finite"):
        value_rows(data, [0.9], {}, battles)


def test_a_win_chance_that_tells_nothing_held_out_is_said(caplog):
    """As that of critics which know their training battles by heart: sure, and as often of the wrong side."""
    rng = np.random.default_rng(5)
    outcome = (rng.random(4000) < 0.7).astype(int)
    values = np.stack([rng.normal(size=4000) * 5, rng.normal(size=4000) + 3 * outcome], axis=1)
    fitted = {"0.9": {"slope": 1.0, "intercept": 0.0}, "0.999": {"slope": 3.0, "intercept": -3.5}}
    rows = value_rows({"values": values, "outcome": outcome}, [0.9, 0.999], fitted, np.arange(4000) // 40)
    share = outcome.mean()
    assert [row["brier_of_share"] for row in rows] == pytest.approx([np.mean((share - outcome) ** 2)] * 2)
    heldout.warn_of_win_chance({"gamma": 0.999, "values": rows})
    heldout.warn_of_win_chance({"gamma": 0.9, "values": [{"gamma": 0.9, "auc": 0.5}]})  # nothing was fitted
    assert caplog.messages == []
    heldout.warn_of_win_chance({"gamma": 0.9, "values": rows})
    (said,) = caplog.messages
    scores = f"{rows[0]['brier']:.4f}, not below {share * (1 - share):.4f}"
    assert said == (
        f"win chance at γ = 0.9: its Brier score over 100 held-out battles is {scores}, that of always telling the "
        "share of wins: where AUC is above 0.5 it is too sure of itself, else it knows nothing; more battles mend "
        "either"
    )
    caplog.clear()
    heldout.warn_of_win_chance({"gamma": 0.9, "values": [rows[0] | {"brier": rows[0]["brier_of_share"]}]})
    assert len(caplog.messages) == 1


def test_the_values_intervals_are_printed_and_old_evaluations_read():
    old = {"gamma": 0.999, "decisions": 1597, "auc": 0.669, "brier": 0.224}
    new = old | {"battles": 1038, "auc95": [0.589, 0.75], "brier95": [0.2, 0.25]}
    told = as_text({"gamma": 0.999, "policy": [], "values": [old, new, new | {"battles": 1}]}).split("\n")[-3:]
    assert told == [
        "value at γ = 0.999: AUC 0.669, Brier 0.224 over 1597 decisions",
        "value at γ = 0.999: AUC 0.669 [0.589, 0.750], Brier 0.224 [0.200, 0.250] over 1597 decisions of 1,038 battles",
        "value at γ = 0.999: AUC 0.669 of one battle, Brier 0.224 of one battle over 1597 decisions",
    ]


def test_the_quick_score_against_a_plain_loop(decisions, monkeypatch):
    """Of one process, and of two whose sums are added: packs are dealt out, and what fills a round counts nothing."""
    network, packs, columns = decisions
    monkeypatch.setattr(quick_score, "heldout_packs", lambda packs, _: iter(packs))
    chosen = (columns["legal"].sum(1) >= 2) & columns["cloned"]
    known = columns["outcome"] >= 0
    expected = {
        "heldout/nll": columns["nll"][chosen].mean(),
        "heldout/accuracy": (columns["rank"][chosen] == 0).mean(),
        "heldout/decisions": chosen.sum(),
    }
    for g, gamma in ((2, 0.999), (3, 0.9999)):
        chance = np.clip((columns["values"][known, g] + 100) / 200, 0, 1)  # from a loss of −100 to a win of 100
        error = 0.0
        for lowest in range(10):
            inside = np.minimum(np.floor(10 * chance), 9) == lowest
            error += abs((chance - columns["outcome"][known])[inside].sum()) / known.sum()
        expected[f"value/calibration@{gamma}"] = error
    assert expected["value/calibration@0.999"] != pytest.approx(expected["value/calibration@0.9999"])

    def score(rank, world, reduce):
        accelerator = SimpleNamespace(process_index=rank, num_processes=world, reduce=reduce)
        return QuickScore(packs, accelerator)(network)

    sums = []
    assert score(0, 1, lambda x, reduction: x) == pytest.approx(expected)
    score(1, 2, lambda x, reduction: sums.append(x) or x)
    assert score(0, 2, lambda x, reduction: x + sums[0]) == pytest.approx(expected)
