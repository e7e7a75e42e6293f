"""Node processes that are killed, hang or never start: their battles are void, the others go on, and it is said."""

import os
import signal

import pytest

from battle import node_process
from battle.baselines import RandomAgent
from battle.errors import InvalidTeam, NoSimulator
from battle.node_process import node_command
from battle.simulator import BattleSpec, Simulator
from battle.teams import load_teams
from tests.battle.test_simulator import battles


def test_a_killed_process_is_started_again_and_its_battles_are_void():
    with Simulator() as sim:
        teams = load_teams(sim, "gen1ou")
        for n in range(3):
            sim.start(BattleSpec(f"b{n}", "gen1ou", f"1,2,3,{n}", (teams[0].packed, teams[1].packed)))
        assert sum(event.event == "ask" for event in sim.step()) == 6
        os.kill(sim.workers[0].process.pid, signal.SIGKILL)
        sim.act("b0", [0, 0])
        events = sim.step()
        assert [event.event for event in events] == ["void"] * 3
        assert {event.message for event in events} == {"the Node process was lost: exit status -9"}
        assert sim.restarts == 1
        assert len(battles(sim, "gen1ou", 2)) == 2
        for lane in ("kept", "left"):
            sim.start(BattleSpec(lane, "gen1ou", "1,2,3,4", (teams[0].packed, teams[1].packed)))
        assert len(sim.step()) == 4
        os.kill(sim.workers[0].process.pid, signal.SIGKILL)
        sim.drop("left")
        sim.start(BattleSpec("late", "gen1ou", "1,2,3,4", (teams[0].packed, teams[1].packed)))
        assert [event.lane for event in sim.step()] == ["kept", "late"]  # the first three are no longer its
        assert sim.restarts == 2
        assert sim.home == sim.told == {}


STAND_IN = r"""#!/bin/sh
echo '{"version":"0"}'
while read -r line; do
  case $line in *cut*) printf '{"ev'; exec sleep 60; esac
  echo "a word of its own" >&2
  lane=${line#*\",\"}
  printf '{"events":[{"event":"quiet","lane":"%s","message":"' "${lane%%\"*}"
  head -c 3000000 /dev/zero | tr '\0' x
  echo '"}]}'
done
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Processes that answer whatever they are asked with its lane, at length: more than a pipe holds; but "cut" with
    the beginning of an answer."""
    node = tmp_path / "node"
    node.write_text(STAND_IN)
    node.chmod(0o755)
    monkeypatch.setenv("TURNWISE_NODE", str(node))


@pytest.mark.parametrize("lane", ["stopped", "cut"])
def test_a_hung_process_counts_as_lost_and_takes_no_others_time(stand_in, lane):
    with Simulator(processes=2, timeout=0.6) as sim:
        for each in (lane, "well"):
            sim.start(BattleSpec(each, "gen1ou", "1,2,3,4"))
        if lane == "stopped":
            os.kill(sim.workers[0].process.pid, signal.SIGSTOP)
            sim.write(lane, " " * (4 << 20))  # more than its pipe takes
        void, well = sim.step()
        assert (void.event, void.lane, void.message) == ("void", lane, "the Node process was lost: no answer in 1 s")
        assert (well.event, well.lane, len(well.message)) == ("quiet", "well", 3_000_000)
        assert [worker.restarts for worker in sim.workers] == [1, 0]


def test_an_interrupted_step_leaves_no_answer_for_the_next(stand_in, monkeypatch, caplog):
    """A Ctrl-C in a notebook: each further answer was taken for the one before it."""

    def interrupt(worker, timeout):
        raise KeyboardInterrupt

    with Simulator() as sim:
        sim.start(BattleSpec("before", "gen1ou", "1,2,3,4"))
        with monkeypatch.context() as patch:
            patch.setattr(node_process.Worker, "receive", interrupt)
            with pytest.raises(KeyboardInterrupt):
                sim.step()
        sim.workers[0].process.wait()
        sim.drop("before")
        assert sim.step() == []
        sim.start(BattleSpec("after", "gen1ou", "1,2,3,4"))
        assert [event.lane for event in sim.step()] == ["after"]
    assert "node: a word of its own" in caplog.text


def test_what_is_asked_of_a_process_that_is_gone_is_an_error_in_words(stand_in):
    def gone(place):
        sim.workers[place].process.kill()
        sim.workers[place].process.wait()

    with Simulator(processes=2) as sim:
        gone(1)
        sim.command("replay", "one", worker=1)
        assert [event.message for event in sim.step()] == ["the Node process was lost: exit status -9"]
        assert [worker.restarts for worker in sim.workers] == [0, 1]
    with Simulator() as sim:
        gone(0)
        with pytest.raises(InvalidTeam, match="mine: not a team for gen1ou: the Node process was lost: exit"):
            sim.pack_team("gen1ou", "Mew", "mine")
        gone(0)
        with pytest.raises(NoSimulator, match="formats could not be asked: the Node process was lost: exit status -9;"):
            sim.check_formats(["gen1ou"])


def test_what_was_not_sent_of_a_battle_goes_with_it(simulator):
    teams = tuple(team.packed for team in load_teams(simulator, "gen1ou")[:2])
    for _ in range(2):
        simulator.start(BattleSpec("brief", "gen1ou", "1,2,3,4", teams))
        assert [event.turn for event in simulator.step()] == [1, 1]
        simulator.act("brief", [0, 0])
        simulator.drop("brief")
    assert simulator.step() == []
    simulator.command("write", "brief", "", worker=0)
    assert [event.event for event in simulator.step()] == ["void"]  # nor does its process know of it


def test_a_lost_process_voids_matches_and_play_goes_on():
    with Simulator() as sim:
        killed = []

        class Killer(RandomAgent):
            def choose(self, observations):
                if not killed and observations[0].state["opponents_remaining"] < 5:
                    killed.append(sim.workers[0].process.pid)
                    os.kill(killed[0], signal.SIGKILL)
                return super().choose(observations)

        outcomes = battles(sim, "gen1ou", 6, (Killer(), RandomAgent()), lanes=3)
        kinds = [outcome.kind for outcome in outcomes]
        assert kinds.count("void") == 3
        assert kinds.count("won") == 3
        assert all(outcome.winner == -1 for outcome in outcomes if outcome.kind == "void")


def test_another_node_is_taken_by_its_name(monkeypatch):
    monkeypatch.setenv("TURNWISE_NODE", "another/node")
    assert node_command()[0] == "another/node"


def test_an_old_node_is_said_in_place_of_where_it_stumbled(tmp_path, monkeypatch):
    node = tmp_path / "node"
    node.write_text('#!/bin/sh\n[ "$1" = --version ] && echo v12.22.9 || { echo "SyntaxError: a ??=" >&2; exit 1; }\n')
    node.chmod(0o755)
    monkeypatch.setenv("TURNWISE_NODE", str(node))
    with pytest.raises(NoSimulator, match=r"node is Node v12\.22\.9, too old: install Node 20 or newer"):
        node_process.Worker()
    node.write_text(node.read_text().replace("v12", "v22"))
    with pytest.raises(NoSimulator, match="did not start: SyntaxError"):
        node_process.Worker()


def test_a_node_that_says_nothing_is_stopped(tmp_path, monkeypatch):
    node = tmp_path / "node"
    node.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo unknown && exit\necho $$ > {tmp_path}/pid\nexec sleep 60\n'
    )
    node.chmod(0o755)
    monkeypatch.setenv("TURNWISE_NODE", str(node))
    with pytest.raises(NoSimulator, match="did not start: no word from it"):
        node_process.Worker(start_timeout=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    node.write_text("#!/bin/sh\nseq 5000 >&2; echo out of order >&2\n")
    with pytest.raises(NoSimulator, match="\n5000\nout of order;"):
        node_process.Worker()


def test_no_node_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setattr(node_process.shutil, "which", lambda name: None)
    monkeypatch.delenv("TURNWISE_NODE", raising=False)
    with pytest.raises(NoSimulator, match="install Node 20 or newer, then run `make setup`"):
        Simulator()


def test_no_package_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(node_process, "ROOM", tmp_path)
    with pytest.raises(NoSimulator, match="npm ci"):
        Simulator()


def test_a_bridge_that_does_not_start_is_said(monkeypatch, tmp_path):
    broken = tmp_path / "bridge.js"
    broken.write_text("throw new Error('out of order')")
    monkeypatch.setattr(node_process, "BRIDGE", broken)
    with pytest.raises(NoSimulator, match="out of order"):
        Simulator()
