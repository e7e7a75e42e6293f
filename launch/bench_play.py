"""Speed of play: `python -m launch.bench_play --formats gen1ou gen9ou --battles 100 [--checkpoint DIR] [--poke-env]`.

Random against random through the bridge, both players' states made and handed to Python, in battles per CPU-second
(Node and Python together), beside the simulator alone inside Node, with players who read, list and draw as ours do and
then choose as the battle's input log says. So both sides play the very same battles: teams, dice, choices, turns. They
take turns, who goes first changes from round to round, and the ratio told is the median of the rounds'. Showdown's own
RandomPlayerAI plays the same teams and dice once, for comparison. With --checkpoint the model's decisions per second,
batched and one at a time; with --presets the latency of fresh models of those sizes; with --poke-env its random players
over the websocket of a local server. Writes one record to launch/records/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from battle.baselines import RandomAgent
from battle.node_process import ROOM, node_command
from battle.play import Match, play
from battle.players import make_player, parse_player
from battle.schedule import seed_of
from battle.simulator import Simulator
from battle.teams import load_teams
from data.observation import SPACES
from data.terminal import first_line
from data.tokenizer import Tokenizer
from launch.record import write_record
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from trainer.export import export_model

# Battles before the clock starts, on both sides of a comparison: compiling JavaScript is not what is measured.
WARM = 20


def cpu_of(pid: int) -> float:
    """CPU seconds of a running process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def matches(battle_format: str, teams: list, battles: int, agents: tuple, first: int = 0) -> list[Match]:
    return [
        Match(
            id=f"bench{n}",
            format=battle_format,
            agents=agents,
            seed=seed_of("bench", battle_format, n),
            teams=(teams[2 * n % len(teams)].packed, teams[(2 * n + 1) % len(teams)].packed),
        )
        for n in range(first, first + battles)
    ]


def recorded(battle_format: str, battles: int) -> tuple[list[Match], list[list[str]]]:
    """WARM matches and then `battles` more; and the input log of each, from playing it once through the bridge."""
    agents = (RandomAgent(), RandomAgent())
    with Simulator() as sim:
        teams = load_teams(sim, battle_format)
        plan = matches(battle_format, teams, WARM, agents, first=10_000)
        plan += matches(battle_format, teams, battles, agents)
        logged = [replace(match, want_log=True) for match in plan]
        outcomes = {o.match.id: o for o in play(sim, logged, lanes=16, turn_limit=1000)}
    kinds = {outcome.kind for outcome in outcomes.values()}
    if not kinds <= {"won", "tie"}:
        raise SystemExit(f"error: {battle_format}: a battle did not come to its end: {sorted(kinds)}")
    return plan, [outcomes[match.id].log for match in plan]


def bridge(plan: list[Match]) -> dict[str, Any]:
    """Battles per CPU-second through the bridge, states of both sides included; the first WARM are not counted."""
    with Simulator() as sim:
        for _ in play(sim, plan[:WARM], turn_limit=1000):
            pass
        pid = sim.workers[0].process.pid
        node, python, started = cpu_of(pid), own_cpu(), time.monotonic()
        outcomes = list(play(sim, plan[WARM:], lanes=16, turn_limit=1000))
        node, python = cpu_of(pid) - node, own_cpu() - python
        seconds = time.monotonic() - started
    battles, turns = len(outcomes), sum(outcome.turns for outcome in outcomes)
    return {
        "battles": battles,
        "turns": turns,
        "states": sum(len(view.states) for outcome in outcomes for view in outcome.views),
        "node_cpu_seconds": round(node, 2),
        "python_cpu_seconds": round(python, 2),
        "wall_seconds": round(seconds, 2),
    } | rates(battles, turns, node + python)


def rates(battles: int, turns: int, cpu: float) -> dict[str, float]:
    return {"battles_per_cpu_second": round(battles / cpu, 2), "turns_per_cpu_second": round(turns / cpu, 1)}


def bare(logs: list[list[str]], policy: str) -> dict[str, Any]:
    """The same battles (policy "logged") inside Node, without states and pipe; the first WARM are not counted."""
    node = node_command()[:-1]  # with the bridge's own settings of the memory
    out = subprocess.run(
        [*node, str(ROOM / "node" / "bare.js"), policy, str(WARM)],
        input=json.dumps(logs),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(out.stdout.splitlines()[-1])
    return found | rates(found["battles"], found["turns"], found["cpu_seconds"])


def compare(battle_format: str, battles: int, rounds: int) -> dict[str, Any]:
    """Bridge and simulator alone over the same battles, in turns."""
    plan, logs = recorded(battle_format, battles)
    sides = {"bridge": lambda: bridge(plan), "simulator_alone": lambda: bare(logs, "logged")}
    played = []
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        found = {key: sides[key]() for key in order}
        played.append({key: found[key] for key in sides})
        turns = {side["turns"] for side in played[-1].values()}
        if len(turns) > 1:
            raise SystemExit(f"error: {battle_format}: the two sides did not play the same battles: turns {turns}")
    rate = "battles_per_cpu_second"
    ratios = sorted(r["bridge"][rate] / r["simulator_alone"][rate] for r in played)
    return {
        "rounds": played,
        "bridge_to_alone": round(float(np.median(ratios)), 3),
        "bridge_to_alone_rounds": [round(ratio, 3) for ratio in ratios],
        **{f"{key}_{rate}": float(np.median([r[key][rate] for r in played])) for key in sides},
        "turns_mean": round(played[0]["bridge"]["turns"] / battles, 1),
        f"simulator_alone_stock_ai_{rate}": bare(logs, "stock")[rate],
    }


class Timed:
    """An agent whose calls are timed one by one: how many decisions, seconds by the clock, seconds of CPU."""

    wants_lines = wants_requests = False

    def __init__(self, agent: Any):
        self.agent, self.name = agent, agent.name
        self.calls: list[tuple[int, float, float]] = []

    def choose(self, observations: list) -> list[int]:
        started, cpu = time.perf_counter(), time.process_time()
        actions = self.agent.choose(observations)
        self.calls.append((len(observations), time.perf_counter() - started, time.process_time() - cpu))
        return actions

    def end(self, lane: str) -> None:
        self.agent.end(lane)


def model(checkpoint: str, battle_format: str, lanes: int, battles: int) -> dict[str, Any]:
    """Decisions per second of a saved model that plays itself, `lanes` battles (twice as many sides) at a time."""
    agent = Timed(make_player(parse_player(checkpoint)))
    with Simulator() as sim:
        teams = load_teams(sim, battle_format)
        for _ in play(sim, matches(battle_format, teams, battles, (agent, agent)), lanes=lanes, turn_limit=200):
            pass
    calls = agent.calls[3:]
    decisions, seconds = sum(n for n, _, _ in calls), sum(s for _, s, _ in calls)
    each = np.array([s for _, s, _ in calls]) * 1000
    return {
        "battles_at_once": lanes,
        "sides_per_call_mean": round(decisions / len(calls), 1),
        "decisions": decisions,
        "decisions_per_second": round(decisions / seconds, 1),
        "call_ms_p50": round(float(np.percentile(each, 50)), 2),
        "call_ms_p99": round(float(np.percentile(each, 99)), 2),
    }


def single(checkpoint: str, battle_format: str, battles: int) -> dict[str, Any]:
    """Latency of one decision at a time: the model against the random player."""
    agent = Timed(make_player(parse_player(checkpoint)))
    with Simulator() as sim:
        teams = load_teams(sim, battle_format)
        plan = matches(battle_format, teams, battles, (agent, RandomAgent()))
        for _ in play(sim, plan, lanes=1, turn_limit=200):
            pass
    each, cpu = 1000 * np.array([call[1:] for call in agent.calls[3:]]).T
    return {
        "decisions": len(each),
        "ms_p50": round(float(np.percentile(each, 50)), 2),
        "ms_p99": round(float(np.percentile(each, 99)), 2),
        "cpu_ms_p50": round(float(np.percentile(cpu, 50)), 2),
    }


def fresh(name: str, battle_format: str, battles: int) -> dict[str, Any]:
    """Latency of an untrained model of a preset: what a decision costs does not depend on the weights."""
    tokenizer = Tokenizer.load()
    config = TurnwiseConfig(
        **preset(name),
        layout=SPACES["default"].layout,
        vocab_size=len(tokenizer),
        vocabulary_hash=tokenizer.hash,
    )
    with tempfile.TemporaryDirectory() as folder:
        network = TurnwiseForOfflineRL(config)
        export_model(network, tokenizer, Path(folder))
        return {"parameters": network.count_parameters()["total"]} | single(folder, battle_format, battles)


def versions() -> dict[str, str]:
    """Of Node and of the simulator."""
    with Simulator() as sim:
        showdown = sim.version
    node = subprocess.run([node_command()[0], "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"node": node, "pokemon-showdown": showdown}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="python -m launch.bench_play", description=first_line(__doc__))
    parser.add_argument("--formats", nargs="+", default=["gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou"])
    parser.add_argument("--battles", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--checkpoint", help="a model's folder: measure its decisions too")
    parser.add_argument("--presets", nargs="*", default=[], help="also fresh models of these sizes, one at a time")
    parser.add_argument("--poke-env", action="store_true", help="also poke-env's random players over the websocket")
    parser.add_argument("--name", default="play", help="name of the record")
    args = parser.parse_args(argv)
    results: dict[str, Any] = {}
    for battle_format in args.formats if args.battles else ():
        results[battle_format] = compare(battle_format, args.battles, args.rounds)
        if args.poke_env:
            from battle.local_server import measure_poke_env

            results[battle_format]["poke_env_websocket"] = measure_poke_env(battle_format, min(args.battles, 10))
        shown = {key: value for key, value in results[battle_format].items() if key != "rounds"}
        print(json.dumps({battle_format: shown}), flush=True)
    if args.checkpoint:
        results["model"] = {
            "checkpoint": Path(args.checkpoint.split(":")[0]).name,
            "threads": torch.get_num_threads(),
            "batched": [model(args.checkpoint, "gen1ou", lanes, 2 * lanes) for lanes in (16, 64, 128)],
            "one_at_a_time": single(args.checkpoint, "gen1ou", 5),
        }
        print(json.dumps(results["model"]), flush=True)
    for name in args.presets:
        results[f"fresh_{name}"] = {"one_at_a_time": fresh(name, "gen1ou", 3)}
        print(json.dumps({name: results[f"fresh_{name}"]}), flush=True)
    print(write_record(args.name, f"python -m launch.bench_play {' '.join(argv)}".strip(), results, versions()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
