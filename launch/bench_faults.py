"""A campaign of faults against short CPU runs: whatever is killed or damaged, a run ends in the same parameters.

    python -m launch.bench_faults --rounds 40        # goes on from the rounds that the record holds; 200 in all

Each round starts a run of one or two processes (plain, ZeRO 1, ZeRO 3), harms it at a random moment of its start-up
or its steps, and starts it again by the same command until it is done: kill -9 or SIGTERM of one process, kill -9 of a
loader's worker, kill -9 and then a bit of the newest checkpoint flipped or its tail cut off, a full file system. A
round is sound where every start ends by itself within a minute and the last checkpoint's parameters, moments and
targets, and the model that the run leaves, are bit by bit those of the undisturbed run. Runs are forked from this
process, which has imported all there is: a start costs a second, not ten. Full disks are small tmpfs mounts (needs
root; left out elsewhere).
"""

import argparse
import gc
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil
import torch
from safetensors.torch import load_file

from launch.bench_engines import ROOT, SETTINGS, environment
from launch.record import RECORDS, write_record
from trainer import train
from trainer.stop import STOPPED
from trainer.world import free_port

TOTAL, STEPS, WATCHDOG = 200, 18, 60  # rounds in all; steps of a run; seconds that a start may take
WORLDS = ((1, "plain"), (1, "plain"), (2, "plain"), (2, "plain"), (2, "zero1"), (2, "zero3"))
KINDS = ("kill", "kill", "term", "worker", "flip", "cut", "full")
KIND_WORDS = {
    "kill": "kill -9 of a process", "term": "SIGTERM to a process", "worker": "kill -9 of a loader's worker",
    "flip": "kill -9, then a bit of the newest checkpoint flipped", "cut": "kill -9, then its tail cut off",
    "full": "file system full",
}  # fmt: skip
STARTED = "--- started"  # a line of a round's log
TOLD = re.compile(r"^step (\d+)/", re.MULTILINE)
ABORT = "terminate called without an active exception"  # upstream: ZeRO's exit, now and then, after its results


# As small as a network can be: what is tried here does not depend on its size.
NETWORK = (
    "model.hidden_size=32", "model.num_layers=1", "model.num_heads=1", "model.mlp_size=32", "model.head_width=8",
    "model.word_width=8", "model.entity_width=16", "model.entity_hidden=16", "model.value_bins=8",
)  # fmt: skip


class Round(msgspec.Struct):
    """What happened in one round. lost: steps done before the fault that were done again. problem: empty if sound."""

    number: int
    kind: str
    world: int
    engine: str
    starts: int = 0
    lost: int = 0
    struck: bool = False
    upstream_aborts: int = 0
    problem: str = ""


class Start:
    """The processes of one start of a run, forked from this one."""

    def __init__(self, output: Path, world: int, engine: str, log: Path):
        self.log = log
        port = str(free_port())
        arguments = [
            *SETTINGS, *NETWORK, f"data.path={ROOT / 'data' / 'sample'}", f"output={output}", f"max_steps={STEPS}",
            f"processes={world}", "data.workers=1", "data.turns=always", "batch.battles=2", "batch.turns=128",
            "checkpoint.every=3", "checkpoint.keep=2", "eval.every=6", "eval.battles=8", "log.every=2",
            "log.progress=true", "timeout_minutes=0.5",
        ]  # fmt: skip
        if engine != "plain":
            arguments.append(f"deepspeed=ds_configs/{engine}.json")
        with open(log, "a", encoding="utf-8") as handle:
            handle.write(f"{STARTED}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pids = [self._fork(rank, world, port, arguments) for rank in range(world)]
        self.codes: dict[int, int] = {}

    def _fork(self, rank: int, world: int, port: str, arguments: list[str]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if world > 1:
                ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
                os.environ.update(**ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            code = train.main(arguments)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # As a process of its own would end: threads and libraries of the forked parent are not this run's.
            os._exit(code)

    def alive(self) -> list[int]:
        """Processes still running; notes the exit codes of the others."""
        for pid in self.pids:
            if pid not in self.codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
        return [pid for pid in self.pids if pid not in self.codes]

    def wait(self, seconds: float) -> bool:
        """Whether all end within that time."""
        until = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def wait_for_step(self, step: int) -> None:
        """Returns once the run tells of that step or a later one, or has ended, or says nothing of it for WATCHDOG."""
        until = time.monotonic() + WATCHDOG
        while self.alive() and time.monotonic() < until:
            if any(int(told) >= step for told in TOLD.findall(self.log.read_text(errors="replace"))):
                return
            time.sleep(0.02)

    def destroy(self) -> None:
        for pid in self.alive():
            os.killpg(pid, signal.SIGKILL)
        self.wait(10)

    def workers(self) -> list[int]:
        """Loader processes of the run."""
        found = []
        for pid in self.alive():
            try:
                found += [child.pid for child in psutil.Process(pid).children()]
            except psutil.NoSuchProcess:
                continue
        return found


class Campaign:
    """Undisturbed twins, and rounds against them."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.twins: dict[tuple[int, str], tuple[Path, float]] = {}

    def twin(self, world: int, engine: str) -> tuple[Path, float]:
        """(folder, seconds to its first step) of the undisturbed run. Raises RuntimeError where that fails."""
        if (world, engine) not in self.twins:
            output = self.scratch / f"twin-{world}-{engine}"
            started = time.monotonic()
            start = Start(output, world, engine, self.scratch / f"twin-{world}-{engine}.log")
            start.wait_for_step(1)
            seconds = time.monotonic() - started
            if not start.wait(3 * WATCHDOG) or any(start.codes.values()):
                start.destroy()
                raise RuntimeError(f"the undisturbed run failed:\n{start.log.read_text()[-3000:]}")
            self.twins[world, engine] = output, seconds
        return self.twins[world, engine]

    def play(self, number: int, kinds: Sequence[str]) -> Round:
        """One round, a function of its number but for the machine's timing."""
        rng = random.Random(number)
        world, engine = rng.choice(WORLDS)
        result = Round(number, rng.choice(kinds), world, engine)
        twin, seconds = self.twin(world, engine)
        folder = self.scratch / f"round-{number}"
        output = folder / "run"
        output.mkdir(parents=True)
        disk = SmallDisk(output, _size(twin)) if result.kind == "full" else None
        log = folder / "log.txt"
        try:
            self._disturbed(result, rng, Start(output, world, engine, log), output, seconds)
            if disk is not None:
                disk.grow()
            while not result.problem and result.starts < 4:
                start = Start(output, world, engine, log)
                result.starts += 1
                if not start.wait(WATCHDOG):
                    result.problem = f"start {result.starts}: no end within {WATCHDOG} s"
                    start.destroy()
                elif self._done(result, start, output):
                    break
            else:
                result.problem = result.problem or "not done after four starts"
            result.lost = _lost(log)
            result.problem = result.problem or _unlike(output, twin)
        finally:
            if disk is not None:
                disk.close()
        if not result.problem:
            shutil.rmtree(folder)
        return result

    def _disturbed(self, result: Round, rng: random.Random, start: Start, output: Path, seconds: float) -> None:
        """The first start and its fault: in a third of the rounds while it starts up, which took the twin `seconds`;
        else shortly after a step, by what the run tells, whatever else the machine does."""
        result.starts = 1
        if result.kind == "full":
            if not start.wait(WATCHDOG):
                result.problem = f"on a full disk: no end within {WATCHDOG} s"
                start.destroy()
            result.struck = any(start.codes.values()) or "could not be written" in start.log.read_text()
            return
        if rng.random() < 1 / 3:
            start.wait(seconds * rng.random())
        else:
            start.wait_for_step(rng.randrange(STEPS - 1))
            start.wait(rng.uniform(0, 0.3))
        if result.kind == "worker":
            victims = start.workers()
        else:
            victims = start.alive()
        result.struck = bool(victims)
        if victims:
            number = signal.SIGTERM if result.kind == "term" else signal.SIGKILL
            try:
                os.kill(rng.choice(victims), number)
            except ProcessLookupError:
                result.struck = False
        if not start.wait(WATCHDOG):
            result.problem = f"after the fault: no end within {WATCHDOG} s"
            start.destroy()
        if result.kind == "term" and result.struck:
            odd = [code for code in start.codes.values() if code not in (0, 1, STOPPED)]
            if odd:
                result.problem = f"after SIGTERM: exit codes {odd}"
        if result.kind in ("flip", "cut"):
            _damage(rng, output, cut=result.kind == "cut")

    @staticmethod
    def _done(result: Round, start: Start, output: Path) -> bool:
        codes = set(start.codes.values())
        if codes == {0}:
            return True
        if ABORT in start.log.read_text() and (output / "evaluation.json").exists():
            result.upstream_aborts += 1
            return True
        if STOPPED not in codes:
            result.problem = f"start {result.starts}: exit codes {sorted(codes)}\n{start.log.read_text()[-1500:]}"
        return False


class SmallDisk:
    """A tmpfs over a folder, too small for a run's checkpoints until it grows."""

    def __init__(self, folder: Path, needed: int):
        self.folder, self.needed = folder, needed
        self._mount(f"size={needed // 2}")

    @staticmethod
    def possible() -> bool:
        """Whether this process may mount."""
        with tempfile.TemporaryDirectory() as folder:
            tried = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
            if tried.returncode == 0:
                subprocess.run(["umount", folder], check=True)
            return tried.returncode == 0

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(self.folder)], check=True)

    def grow(self) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", f"remount,size={self.needed * 8}", str(self.folder)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _damage(rng: random.Random, output: Path, cut: bool) -> None:
    """Flip a bit of, or cut the tail off, a random file of the newest checkpoint, if there is one."""
    newest = sorted(output.glob("step_*"))[-1:]
    for folder in newest:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        victim = rng.choice(files)
        data = bytearray(victim.read_bytes())
        place = rng.randrange(len(data))
        if cut:
            data = data[:place]
        else:
            data[place] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)


def _lost(log: Path) -> int:
    """Greatest number of steps that a start did again: the last step told before it, less the one it went on from."""
    told = before = resumed = lost = 0
    for line in log.read_text(encoding="utf-8").splitlines():
        if line == STARTED:
            before, resumed = told, 0
        elif match := re.search(r"resumed from .* at step (\d+)", line):
            resumed = int(match[1])
        elif match := TOLD.match(line):
            told = int(match[1])
            lost, before = max(lost, before - resumed), 0
    return lost


def _unlike(output: Path, twin: Path) -> str:
    """Where a run's results differ from its twin's, in words; empty if nowhere."""
    last = f"step_{STEPS:08d}"
    for name in (f"{last}/model/model.safetensors", f"{last}/optimizer.safetensors", f"{last}/targets.safetensors",
                 "model/model.safetensors"):  # fmt: skip
        if not (output / name).exists():
            return f"{name} is missing"
        ours, theirs = load_file(output / name), load_file(twin / name)
        wrong = [key for key in theirs if key not in ours or not torch.equal(ours[key], theirs[key])]
        if wrong:
            return f"{name}: {len(wrong)} tensors differ, {wrong[0]} first"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Play rounds and rewrite the record; exit status 1 where a round was not sound."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.bench_faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help=f"rounds to play now, up to {TOTAL} in all")
    parser.add_argument("--again", action="store_true", help="start from round 0, the record's rounds forgotten")
    options = parser.parse_args(argv)
    os.environ.update(environment())
    torch.set_num_threads(1)
    record = RECORDS / "faults.json"
    rounds: list[Round] = []
    if record.exists() and not options.again:
        rounds = msgspec.convert(msgspec.json.decode(record.read_bytes())["results"]["rounds"], list[Round])
    kinds = KINDS if SmallDisk.possible() else [kind for kind in KINDS if kind != "full"]
    with tempfile.TemporaryDirectory(prefix="turnwise-faults-", ignore_cleanup_errors=True) as scratch:
        os.environ["TURNWISE_CACHE"] = str(Path(scratch) / "cache")
        for late in ("deepspeed", "sklearn.linear_model"):
            importlib.import_module(late)  # what a run imports when it comes to it: here once, for all of them
        campaign = Campaign(Path(scratch))
        gc.freeze()
        for number in range(len(rounds), min(len(rounds) + options.rounds, TOTAL)):
            rounds.append(campaign.play(number, kinds))
            print(rounds[-1], flush=True)
            _write(rounds)
    return int(any(done.problem for done in rounds))


def _write(rounds: list[Round]) -> None:
    struck = Counter(done.kind for done in rounds if done.struck)
    results = {
        "rounds_played": len(rounds),
        "by_kind": {KIND_WORDS[kind]: struck[kind] for kind in KIND_WORDS},
        "fault_came_after_the_end": sum(not done.struck for done in rounds),
        "steps_lost_mean": round(sum(done.lost for done in rounds) / len(rounds), 2),
        "steps_lost_most_by_kind": {
            words: max((done.lost for done in rounds if done.kind == kind), default=0)
            for kind, words in KIND_WORDS.items()
        },
        "checkpoint_every": 3,
        "upstream_aborts_at_exit": sum(done.upstream_aborts for done in rounds),
        "failures": sum(bool(done.problem) for done in rounds),
        "rounds": msgspec.to_builtins(rounds),
    }
    versions = {name: version(name) for name in ("torch", "accelerate", "deepspeed")}
    path = write_record("faults", f"python -m launch.bench_faults --rounds {len(rounds)}", results, versions)
    rows = [
        f"| {name.replace('_', ' ')} | {value} |" for name, value in results.items() if isinstance(value, int | float)
    ]
    kinds = [
        f"| {kind} | {count} | {results['steps_lost_most_by_kind'][kind]} |"
        for kind, count in results["by_kind"].items()
    ]
    lines = [
        "# Faults", "",
        "`python -m launch.bench_faults --rounds N`, each call going on from the last; a checkpoint every 3 of "
        f"{STEPS} steps. A file system that is full from the start holds no checkpoint: all is done again.", "",
        "| what | count |", "| --- | --- |", *rows, "",
        "| fault | struck | most steps done again |", "| --- | --- | --- |", *kinds,
    ]  # fmt: skip
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
