"""Speed of play: `python -m launch.bench_play --formats gen1ou gen9ou --battles 100 [--checkpoint DIR] [--poke-env]`.

Random against random through the bridge, both players' states made and handed to Python, in battles per CPU-second
(Node and Python together), beside the simulator alone with the same uniform choices inside Node, and with Showdown's
own RandomPlayerAI; in turns, three rounds in one run, medians. With --checkpoint the model's decisions per second,
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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from battle.baselines import RandomAgent
from battle.play import Match, play
from battle.players import make_player, parse_player
from battle.schedule import seed_of
from battle.simulator import ROOM, Simulator, node_command
from battle.teams import load_teams
from data.observation import SPACES
from data.tokenizer import Tokenizer
from launch.record import write_record
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from trainer.hub import export_model

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


def bridge(battle_format: str, battles: int) -> dict[str, Any]:
    """Battles per CPU-second through the bridge, states of both sides included."""
    agents = (RandomAgent(), RandomAgent())
    with Simulator() as sim:
        teams = load_teams(sim, battle_format)
        for _ in play(sim, matches(battle_format, teams, WARM, agents, first=10_000), turn_limit=1000):
            pass
        pid = sim.workers[0].process.pid
        node, python, started = cpu_of(pid), own_cpu(), time.monotonic()
        outcomes = list(play(sim, matches(battle_format, teams, battles, agents), lanes=16, turn_limit=1000))
        node, python = cpu_of(pid) - node, own_cpu() - python
        seconds = time.monotonic() - started
    turns = sum(outcome.turns for outcome in outcomes)
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


def bare(battle_format: str, battles: int, policy: str) -> dict[str, Any]:
    """The same inside Node, without states and pipe."""
    with Simulator() as sim:
        teams = [team.packed for team in load_teams(sim, battle_format)]
    node = node_command()[0]
    out = subprocess.run(
        [node, str(ROOM / "node" / "bare.js"), battle_format, str(battles), policy, str(WARM)],
        input=json.dumps(teams),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(out.stdout.splitlines()[-1])
    return found | rates(found["battles"], found["turns"], found["cpu_seconds"])


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
    parser = argparse.ArgumentParser(prog="python -m launch.bench_play", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--formats", nargs="+", default=["gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou"])
    parser.add_argument("--battles", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", help="a model's folder: measure its decisions too")
    parser.add_argument("--presets", nargs="*", default=[], help="also fresh models of these sizes, one at a time")
    parser.add_argument("--poke-env", action="store_true", help="also poke-env's random players over the websocket")
    parser.add_argument("--name", default="play", help="name of the record")
    args = parser.parse_args(argv)
    results: dict[str, Any] = {}
    for battle_format in args.formats if args.battles else ():
        # In turns, so that what else runs on the machine weighs on all alike; each round is a ratio of its own.
        rounds = [
            {
                "bridge": bridge(battle_format, args.battles),
                "simulator_alone": bare(battle_format, args.battles, "uniform"),
                "simulator_alone_stock_ai": bare(battle_format, args.battles, "stock"),
            }
            for _ in range(args.rounds)
        ]
        results[battle_format] = {"rounds": rounds}
        for unit in ("battles", "turns"):
            rate = f"{unit}_per_cpu_second"
            ratios = sorted(r["bridge"][rate] / r["simulator_alone"][rate] for r in rounds)
            results[battle_format][f"bridge_to_alone_{unit}"] = [round(ratio, 3) for ratio in ratios]
        results[battle_format] |= {
            f"{key}_battles_per_cpu_second": float(np.median([r[key]["battles_per_cpu_second"] for r in rounds]))
            for key in rounds[0]
        }
        if args.poke_env:
            from battle.local_server import measure_poke_env

            results[battle_format]["poke_env_websocket"] = measure_poke_env(battle_format, min(args.battles, 20))
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
