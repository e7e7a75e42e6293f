"""People's battles: input logs replayed on the simulator, and recorded as battle files."""

import gzip
import json
import os
import signal
import tarfile
from datetime import date

import pytest

from battle import import_inputlogs
from battle.baselines import RandomAgent, TypeSwitchAgent
from battle.play import Match, play
from battle.recorder import Recorder
from battle.simulator import Simulator
from battle.teams import load_teams
from data.encode import Encoder
from data.replay_file import parse_name, read_battle
from data.tokenizer import Tokenizer
from tests.data.shared import shared_folder

pytestmark = pytest.mark.usefixtures("lent")

LOGS = "gen9randombattle.jsonl.gz"


def human_lines(count):
    with gzip.open(shared_folder("human") / LOGS, "rt") as lines:
        return [next(lines) for _ in range(count)]


def test_input_logs_replay_to_their_hash(tmp_path):
    lines = human_lines(12)
    bad = json.loads(lines[0]) | {"id": "wrong", "lines_sha256": "0" * 64}
    cut = json.loads(lines[1]) | {"id": "cut"}
    cut["choices"] = cut["choices"][:6]
    custom = json.loads(lines[2]) | {"id": "custom", "format": "gen9randombattle@@@sleepclausemod"}
    source = tmp_path / "logs.jsonl"
    source.write_text("".join(lines) + "".join(json.dumps(r) + "\n" for r in (bad, cut, custom)) + "not json\n")
    report = tmp_path / "report.json"
    command = [str(source), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert import_inputlogs.main(command) == 0
    found = json.loads(report.read_text())
    assert found["battles"] == 12
    assert found["choices_unknown"] == 0
    assert sorted(found["dropped"]) == sorted(
        ["other lines than were played", "the log ends before the battle does", "custom rules", "unreadable"]
    )
    paths = list((tmp_path / "out").rglob("*.lz4"))
    assert len(paths) == 24
    encoder = Encoder("opponentmove", Tokenizer.load())
    for path in paths:
        battle = read_battle(path)
        encoded = encoder.encode(battle.states, battle.actions)
        assert encoded.n_unknown == 0
        assert min(battle.actions[:-2], default=0) >= 0  # only the last decision may have been given up
        assert encoded.won or encoded.lost
    journal = tmp_path / "out" / import_inputlogs.JOURNAL
    noted = journal.read_text()
    journal.write_text(noted[: noted.rindex('"')])  # killed in mid-line
    left_out = found["dropped"]
    for _ in range(2):
        assert import_inputlogs.main(command) == 0
        found = json.loads(report.read_text())
        assert (found["battles"], found["already_there"], found["dropped"]) == (0, 12, left_out)
        assert found["replayed_share"] == 12 / 15  # custom rules are none that could be replayed


def test_a_log_that_was_left_out_and_mended_is_imported(simulator, tmp_path, capsys):
    """A winner by name is no battle that went otherwise, and must not pass for one that is there."""
    record, source = played_log(simulator, "a"), tmp_path / "logs.jsonl"
    command = [str(source), "--out", str(tmp_path / "out"), "-v"]
    told = []
    for change in ({"winner": "Alice"}, {"choices": record["choices"][:3]}, {}):
        source.write_text(json.dumps(record) + "\n" + json.dumps(record | {"id": "b"} | change) + "\n")
        assert import_inputlogs.main(command) == 0
        found = json.loads(capsys.readouterr().out)
        told.append((found["battles"], found["already_there"], list(found["dropped"])))
    assert told == [(1, 0, ["unreadable"]), (0, 1, ["the log ends before the battle does"]), (1, 1, [])]
    bad = json.dumps(record | {"winner": "Alice"}).encode()
    assert "winner is 'Alice': give p1, p2 or tie" in str(import_inputlogs._entry(bad, "logs.jsonl:2"))


def test_a_bad_file_is_named_and_the_others_go_on(tmp_path, caplog):
    lines = [line.encode() for line in human_lines(6)]
    names = ("cut.jsonl.gz", "spoilt.jsonl.gz", "logs.tar.gz", "text.jsonl", "a.jsonl")
    files = {name: tmp_path / name for name in names}
    noise = b"".join(os.urandom(40).hex().encode() + b"\n" for _ in range(400))
    whole = gzip.compress(b"".join(lines[:2]) + noise)
    files["cut.jsonl.gz"].write_bytes(whole[: len(whole) - 2000])
    files["spoilt.jsonl.gz"].write_bytes(gzip.compress(b"")[:10] + b"\xff" * 50)
    files["a.jsonl"].write_bytes(b'{"id": "\xff"}\n' + lines[2])
    with tarfile.open(files["logs.tar.gz"], "w:gz") as archive:
        archive.add(files["a.jsonl"], "a.jsonl")
    files["text.jsonl"].write_text("no battle\n")
    report = tmp_path / "report.json"
    command = [*map(str, files.values()), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert import_inputlogs.main(command) == 1
    found = json.loads(report.read_text())
    assert found["battles"] == 3
    assert len(list((tmp_path / "out").rglob("*.lz4"))) == 6
    said = dict(zip(files, found["bad_files"], strict=False))
    assert len(found["bad_files"]) == 4
    assert "cannot be read beyond line" in said["cut.jsonl.gz"]
    assert "cannot be read beyond line 0" in said["spoilt.jsonl.gz"]
    assert "is an archive: unpack it" in said["logs.tar.gz"]
    assert "none of its 1 lines is a battle" in said["text.jsonl"]
    assert all(line in caplog.text for line in found["bad_files"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_battles_of_people_replay(tmp_path):
    report, source = tmp_path / "human.json", shared_folder("human") / LOGS
    assert import_inputlogs.main([str(source), "--out", str(tmp_path / "out"), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["replayed_share"] >= 0.999
    assert found["choices_unknown"] == 0
    paths = sorted((tmp_path / "out").rglob("*.lz4"))
    assert len(paths) == found["views"] == 2 * found["battles"] > 20_000
    encoder = Encoder("opponentmove", Tokenizer.load())
    unknown = words = 0
    for number, path in enumerate(paths):
        battle, name = read_battle(path), parse_name(path)
        assert min(battle.actions[:-2], default=0) >= 0, path.name
        assert (battle.states[-1].battle_won, battle.states[-1].battle_lost) in (
            (True, False),
            (False, True),
            (False, False),
        )
        if battle.states[-1].battle_won:
            assert name.result == "WIN", path.name
        if number % 4 == 0:
            encoded = encoder.encode(battle.states, battle.actions)
            unknown, words = unknown + encoded.n_unknown, words + encoded.words.size
        path.unlink()
    assert unknown <= 1e-4 * words
    checked = {
        "files_valid": len(paths),
        "words_in_every_fourth_file": words,
        "unknown_words_in_every_fourth_file": unknown,
    }
    report.write_text(json.dumps(found | checked, indent=1))


def write_inputlog(path, record):
    """A record as Showdown's own log of one battle."""
    start = {"formatid": record["format"], "seed": record["seed"]}
    players = [{"name": f"Somebody {n}", "team": team} for n, team in enumerate(record["teams"])]
    text = [">version abc", f">start {json.dumps(start)}"]
    text += [f">player p{n + 1} {json.dumps(player)}" for n, player in enumerate(players)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(text + [f">{choice}" for choice in record["choices"]]))


def test_showdowns_own_input_log(tmp_path):
    write_inputlog(tmp_path / "one.inputlog", json.loads(human_lines(1)[0]))
    (tmp_path / "none.inputlog").write_text(">chat hello\n")
    out = tmp_path / "out"
    command = [str(tmp_path / "none.inputlog"), str(tmp_path / "one.inputlog"), "--out", str(out)]
    assert import_inputlogs.main(command) == 1  # the first is none
    names = [parse_name(path) for path in out.rglob("*.lz4")]
    assert sorted(name.result for name in names) == ["LOSS", "WIN"]
    assert all("Somebody" not in part for name in names for part in map(str, name))


def test_of_two_battles_with_one_id_the_second_is_said_to_be_left_out(tmp_path):
    report, out = tmp_path / "report.json", tmp_path / "out"
    files = [tmp_path / server / "1.inputlog" for server in "ab"]
    for file, line in zip(files, human_lines(2), strict=True):
        write_inputlog(file, json.loads(line))
    assert import_inputlogs.main([*map(str, files), "--out", str(out), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert (found["battles"], found["views"]) == (1, len(list(out.rglob("*.lz4"))))
    assert found["dropped"] == {"its id stands twice": 1}
    twice = tmp_path / "twice.jsonl"  # files' names take no "_": these two would be one there
    twice.write_text(
        "".join(
            json.dumps(json.loads(line) | {"id": name}) + "\n"
            for line, name in zip(human_lines(2), ("a_b", "ab"), strict=True)
        )
    )
    assert import_inputlogs.main([str(twice), "--out", str(out), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["dropped"] == {"its id stands twice": 1}


def test_battles_lost_with_their_process_are_replayed_one_by_one(tmp_path):
    """Else those beside the one that it was lost over would be left out, and noted as done."""
    source, steps = tmp_path / "logs.jsonl", []
    source.write_text("".join(human_lines(3)))
    with Simulator() as sim:
        step = sim.step

        def fail():
            if len(steps) in (0, 2):  # all three, and the second of them once more
                sim.workers[0].process.kill()
            steps.append(len(sim.queue))
            return step()

        sim.step = fail
        importer = import_inputlogs.Importer(sim, tmp_path)
        importer.run(import_inputlogs.read_logs([source]))
    assert (importer.battles, dict(importer.reasons)) == (2, {"the simulator failed on it": 1})


@pytest.mark.parametrize(
    "change",
    [
        *({"format": 3}, {"date": "soon"}, {"date": 20240101}, {"date": "2024-13-01"}),
        *({"ratings": {"p1": 1500, "p2": 1400}}, {"ratings": ["high", 1400]}, {"ratings": [1500]}, {"ratings": 3}),
        *({"ratings": [float("inf"), 1400]}, {"seed": None}, {"id": "half a pair: \ud800"}),
    ],
)
def test_a_record_of_no_day_format_or_ratings_is_left_out_by_its_line(tmp_path, change):
    good = {"id": "a", "format": "gen1ou", "seed": "1,2,3,4", "choices": [], "date": "2024-05-01T10:00"}
    file = tmp_path / "logs.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in (good | change, [good], good)))
    bad, no_object, battle = import_inputlogs.read_jsonl(file)
    assert f"{file}:1: not a battle" in str(bad)
    assert f"{file}:2: not a battle" in str(no_object)
    assert battle.date == date(2024, 5, 1)


def played_log(simulator, name):
    """A battle played here as a record of its input log."""
    first, second = (team.packed for team in load_teams(simulator, "gen1ou")[:2])
    match = Match(name, "gen1ou", (TypeSwitchAgent(), RandomAgent()), 3, (first, second), want_log=True)
    (outcome,) = play(simulator, [match])
    lines = [line[1:].split(" ", 1) for line in outcome.log if line.startswith((">start", ">p1", ">p2"))]
    choices = [" ".join(line) for line in lines if line[0] != "start"]
    seed = json.loads(lines[0][1])["seed"]
    return {"id": name, "format": "gen1ou", "seed": seed, "teams": [first, second], "choices": choices}


def test_a_log_runs_no_program(simulator, tmp_path):
    """The simulator's `eval` is for its developers: in a file from anywhere it is no part of a battle."""
    record, mark = played_log(simulator, "a"), tmp_path / "mark"
    evil = (
        f"eval battle.constructor.constructor('return process')().mainModule.require('fs').writeFileSync('{mark}', '')"
    )
    first, *rest = record["choices"]
    source, report = tmp_path / "logs.jsonl", tmp_path / "report.json"
    logs = (
        *(
            record | {"id": f"{n}", "choices": choices}
            for n, choices in enumerate(([evil, first], [f"{first}\n>{evil}"]))
        ),
        record | {"choices": [first, *rest]},
    )
    source.write_text("".join(json.dumps(log) + "\n" for log in logs))
    write_inputlog(tmp_path / "b.inputlog", record | {"choices": [evil, first, *rest]})
    command = [str(source), str(tmp_path / "b.inputlog"), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert import_inputlogs.main(command) == 0
    assert not mark.exists()
    found = json.loads(report.read_text())
    assert (found["battles"], found["dropped"]) == (1, {"a command that is none of a battle": 3})


def test_a_log_of_no_singles_format_is_left_out_by_a_plain_reason(simulator, tmp_path, capsys):
    """An unknown one was imported as what Showdown takes it for, and doubles passed for a fault of the simulator."""
    record, source = played_log(simulator, "a"), tmp_path / "logs.jsonl"
    formats = {"a": "[Gen 1] OU", "b": "gen99foo", "c": "gen9randomdoublesbattle"}
    source.write_text("".join(json.dumps(record | {"id": name, "format": f}) + "\n" for name, f in formats.items()))
    assert import_inputlogs.main([str(source), "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["battles"], found["dropped"]) == (1, {"no singles format of this Showdown": 2})
    assert found["replayed_share"] == 1
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["gen1ou"]


def test_battles_without_a_date_are_counted(simulator, tmp_path, capsys):
    """A filter by date drops them: their files bear a day before Showdown's first."""
    record, source = played_log(simulator, "a"), tmp_path / "logs.jsonl"
    logs = (record, record | {"id": "b", "date": "2024-05-01"}, record | {"id": "c", "date": None})
    source.write_text("".join(json.dumps(log) + "\n" for log in logs))
    write_inputlog(tmp_path / "d.inputlog", record)
    out = tmp_path / "out"
    assert import_inputlogs.main([str(source), str(tmp_path / "d.inputlog"), "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["battles"], found["undated"]) == (4, 3)
    dates = sorted(parse_name(path).date for path in out.rglob("*.lz4"))
    assert dates == ["01-01-2000"] * 6 + ["05-01-2024"] * 2


def test_an_import_that_is_stopped_goes_on_where_it_was(simulator, tmp_path, monkeypatch, capsys):
    record, source, report = played_log(simulator, "a"), tmp_path / "logs.jsonl", tmp_path / "report.json"
    source.write_text("".join(json.dumps(record | {"id": f"{n}"}) + "\n" for n in range(10)))
    command = [str(source), "--out", str(tmp_path / "out"), "--json", str(report)]
    write, told = Recorder.write, []

    def tells(*given):
        if not told:
            told.append(signal.raise_signal(signal.SIGINT))
        return write(*given)

    monkeypatch.setattr(Recorder, "write", tells)
    assert import_inputlogs.main(command) == 130
    assert "stopped: the same command goes on with the rest" in capsys.readouterr().out
    assert not report.exists()
    assert len(list((tmp_path / "out").rglob("*.lz4"))) == 8  # those four of which it was replaying one
    assert import_inputlogs.main(command) == 0
    found = json.loads(report.read_text())
    assert (found["battles"], found["already_there"]) == (6, 4)


def test_a_player_who_takes_another_name_keeps_team_and_rating(simulator, tmp_path):
    log = tmp_path / "one.inputlog"
    write_inputlog(log, played_log(simulator, "one"))
    begun, rest = (
        log.read_text().replace('"name": "Somebody 1",', '"name": "Somebody 1", "rating": 1523,').split(">p1 ", 1)
    )
    log.write_text(f'{begun}>player p2 {{"name":"Other","avatar":"3"}}\n>p1 {rest}')
    assert import_inputlogs.main([str(log), "--out", str(tmp_path / "out")]) == 0
    names = [parse_name(path) for path in (tmp_path / "out").rglob("*.lz4")]
    assert {name.player: name.rating for name in names} == {"p1": 1000, "p2": 1523}  # 1000: unrated


def test_a_folder_of_input_logs_is_no_file(tmp_path, capsys):
    with pytest.raises(SystemExit):
        import_inputlogs.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert f"{tmp_path}: is no file: give .jsonl, .jsonl.gz or .inputlog files" in capsys.readouterr().err
