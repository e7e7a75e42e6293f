"""A run from its configuration to the agent that it leaves behind. The step itself is in `step.py`."""

import json
import logging
import math
import os
import signal
import time
import zlib
from itertools import islice
from pathlib import Path

import torch

from data.dataset import BattleDataset
from data.loader import make_loader, shape_for
from data.tokenizer import Tokenizer
from model.configuration_turnwise import TurnwiseConfig
from trainer import checkpoint
from trainer.config import RunConfig, to_tree
from trainer.evaluate import as_text, calibrate
from trainer.flops import flops_per_turn
from trainer.heldout import evaluate_dataset, quick_score, some_packs
from trainer.hub import copy_model
from trainer.metrics import CsvLog, FilterWarning, Profiler, Progress, reduce_to_host
from trainer.objective import OfflineRL
from trainer.optim import build_optimizer, learning_rate
from trainer.setup import build_accelerator, build_network, check_observations, check_stamps
from trainer.step import TrainStep

log = logging.getLogger(__name__)
STOPPED = 75  # exit code of a run that was told to stop and saved itself (EX_TEMPFAIL: start it again)
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, from the vendor's data sheets


class StopRequest:
    """SIGTERM and SIGUSR1 ask for a checkpoint at the end of the step; `asked` says whether one came."""

    def __init__(self):
        self.asked, self.owner = False, os.getpid()

    def listen(self) -> None:
        """To be called after start-up: a pool of index processes is ended by SIGTERM, and one that comes while such a
        process forks would be lost to a handler."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def release(self) -> None:
        """From here on the signals end the process, as they do by default."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)

    def _note(self, number, frame) -> None:
        if os.getpid() == self.owner:
            self.asked = True
        else:
            # Forked workers inherit the handler; they are told to end by this very signal.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class Run:
    """One training run; `train()` does all of it and returns an exit code."""

    def __init__(self, config: RunConfig):
        self.stop = StopRequest()
        self.accelerator, config = build_accelerator(config)
        self.config, self.output = config, Path(config.output)
        self.main = self.accelerator.is_main_process
        self.tokenizer = Tokenizer.load(config.data.vocabulary)
        with self.accelerator.main_process_first():
            # The first process fills the index's cache; the others map it.
            self.dataset = BattleDataset(config.data, self.tokenizer, "train")
            self.heldout = BattleDataset(config.data, self.tokenizer, "heldout")
        self.data_report = self.dataset.inspect()
        network = build_network(config, self.tokenizer, self.accelerator.device)
        self.objective = OfflineRL(network, config.objective)
        self.objective.gammas = self.objective.gammas.to(self.accelerator.device)
        self.objective.targets.to(self.accelerator.device)
        self.total = self._total_steps()
        self._prepare()

    def _prepare(self) -> None:
        config, accelerator = self.config, self.accelerator
        if accelerator.device.type == "cuda" if config.compile is None else config.compile:
            self.objective.compile(dynamic=False)
        optimizer = build_optimizer(self.objective, config.optim)
        if accelerator.distributed_type == "DEEPSPEED":
            self.module, self.optimizer = accelerator.prepare(self.objective, optimizer)
        else:
            self.module, self.optimizer = accelerator.prepare(self.objective), optimizer
        self.step = TrainStep(
            accelerator, self.module, self.objective, self.optimizer, config.optim, config.seed, self.total
        )

    def _total_steps(self) -> int:
        """Optimizer steps of the run: `epochs`, or `max_steps` where that comes first."""
        config, world = self.config, self.accelerator.num_processes
        per_step = config.batch.accumulate * world
        if self.dataset.lengths is None or config.batch.plan == "battles":
            per_epoch = len(self.dataset) / (config.batch.battles * per_step)
        else:
            lengths = self.dataset.lengths[self.dataset.lengths >= 2].astype("int64") - 1
            windows = -(-lengths // (config.data.max_turns - 1))
            per_epoch = (lengths + windows).sum() / (shape_for(self.dataset, config.batch).turns * per_step)
        by_epochs = math.ceil(config.epochs * per_epoch) if config.epochs is not None else None
        known = [n for n in (by_epochs, config.max_steps) if n is not None]
        if not known:
            raise ValueError("epochs and max_steps are both null: give one, so that the run ends")
        return min(known)

    def train(self) -> int:
        """Train to the end, or until told to stop; returns the exit code."""
        self.stop.listen()
        try:
            code = self._train()
        finally:
            self.stop.release()
        if code == 0:
            self._finish()
        self.accelerator.end_training()
        return code

    def _train(self) -> int:
        start, best = self._resume()
        config, accelerator = self.config, self.accelerator
        self._start_trackers(start)
        csv_log = CsvLog(self.output / "training_log.csv", start) if self.main else None
        progress = Progress(self.total, start, config.model.act_gamma, self.main and config.log.progress)
        warner = FilterWarning(config.objective.filter)
        loader = make_loader(
            self.dataset, config.batch, seed=config.seed, rank=accelerator.process_index,
            world=accelerator.num_processes, start_step=start, max_steps=self.total,
        )  # fmt: skip
        packs, clock, order = iter(loader), Clock(), 0
        profiler = Profiler(config.log.profile if self.main else 0, self.output / "profile")
        for step in range(start, self.total):
            with clock.waiting():
                micro = list(islice(packs, config.batch.accumulate))
            if step == start:
                self._summary(micro, loader)
            self.module.train()
            profiler.step_begins(step - start)
            metrics = self.step(step, [self._to_device(pack) for pack in micro])
            clock.count(micro)
            for pack in micro:
                order = zlib.crc32(pack["windows"].numpy().tobytes(), order)
            done = step + 1
            row = None
            if done % config.log.every == 0 or done == self.total or done == start + 1:
                row = reduce_to_host(
                    accelerator, metrics | clock.shares(accelerator), self.objective.network.config.gammas
                )
                # Which windows were trained on since the last row, as one number: equal for a run and its resumed twin.
                row = {
                    "step": done,
                    "data/order_crc32": order,
                    "lr": learning_rate(step, self.total, config.optim),
                    **self._speed(row, clock),
                }
                warner.check(row, done)
                if row["optim/skipped"] > 0:
                    log.warning("step %d: the gradient was not finite; its update was skipped", done)
                order = 0
            wants_eval = done == self.total or (config.eval.every and done % config.eval.every == 0)
            if wants_eval:
                scores = quick_score(self.objective.network, self.heldout, config.eval.battles, accelerator)
                row = {**(row or {"step": done}), **scores}
                clock.restart()
            self._tell(row, csv_log, progress, done)
            stopping = self._stop_agreed(done)
            if wants_eval or stopping or done == self.total or done % config.checkpoint.every == 0:
                folder = self._save(done, best)
                if wants_eval and (best is None or scores["heldout/nll"] < best):
                    best = scores["heldout/nll"]
                    if self.main:
                        checkpoint.set_best(self.output, folder, best)
                if self.main:
                    checkpoint.prune(self.output, config.checkpoint.keep)
                clock.restart()
            if stopping:
                progress.close()
                log.warning("told to stop: saved at step %d; start again with the same command to go on", done)
                return STOPPED
        progress.close()
        return 0

    def _resume(self) -> tuple[int, float | None]:
        """(step to start at, best held-out NLL so far)."""
        choice = self.config.resume
        folder = None
        if choice == "auto":
            folder = checkpoint.newest_valid(self.output)
        elif choice != "never":
            folder = Path(choice)
        if folder is None:
            return 0, None
        saved = TurnwiseConfig.from_pretrained(folder / "model")
        check_stamps(saved, self.config.data, self.tokenizer, str(folder))
        run = checkpoint.restore(folder, self.accelerator, self.module, self.objective, self.optimizer)
        if self.main:
            log.info("resumed from %s at step %d", folder, run["step"])
        return run["step"], run["best"]

    def _save(self, step: int, best: float | None) -> Path:
        record = {"config": to_tree(self.config), "best": best, "data": {"files": self.data_report.files}}
        return checkpoint.save(
            self.output, step, self.accelerator, self.module, self.objective, self.optimizer, record, self.tokenizer
        )

    def _finish(self) -> None:
        """The best checkpoint's model, calibrated and evaluated, becomes OUTPUT/model."""
        self.accelerator.wait_for_everyone()
        if not self.main:
            return
        target = self.output / "model"
        copy_model(checkpoint.best_checkpoint(self.output) / "model", target)
        network = checkpoint.load_network(target).to(self.accelerator.device)
        network.attention = self.objective.network.attention
        calibration = calibrate(network, some_packs(self.dataset, self.config.eval.calibration_battles))
        (target / "calibration.json").write_text(json.dumps(calibration, indent=1))
        result = evaluate_dataset(network, self.heldout, self.dataset, calibration)
        (self.output / "evaluation.json").write_text(json.dumps(result, indent=1))
        log.info("%s\n\nthe agent is in %s", as_text(result), target)

    def _stop_agreed(self, done: int) -> bool:
        """Whether all processes stop now. With several, they compare notes on logging steps alone."""
        if self.accelerator.num_processes == 1:
            return self.stop.asked
        if done % self.config.log.every:
            return False
        flag = torch.tensor(float(self.stop.asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _to_device(self, pack: dict) -> dict:
        return {key: value.to(self.accelerator.device, non_blocking=True) for key, value in pack.items()}

    def _start_trackers(self, start: int) -> None:
        if self.main:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / "run_config.json").write_text(json.dumps(to_tree(self.config), indent=1))
        if self.accelerator.log_with:
            self.accelerator.init_trackers(self.config.log.project, config=_flat(to_tree(self.config)))

    def _speed(self, row: dict, clock: "Clock") -> dict:
        """Speeds since the last logged row, over all processes."""
        seconds = clock.take_seconds()
        row["speed/battles_per_s"] = row.pop("_battles") / seconds
        row["speed/turns_per_s"] = row.pop("_turns") / seconds
        if self.accelerator.device.type == "cuda":
            name = torch.cuda.get_device_name()
            peak = next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)
            if peak:
                per_gpu = row["speed/turns_per_s"] / self.accelerator.num_processes
                row["speed/mfu"] = self.flops["train"] * per_gpu / peak
        return row

    def _tell(self, row: dict | None, csv_log: CsvLog | None, progress: Progress, done: int) -> None:
        if row is not None and self.main:
            csv_log.write(row)
            self.accelerator.log(row, step=done)
            if "heldout/nll" in row:
                log.info(
                    "step %d held-out NLL %.4f, top-1 %.1f%% at γ = %s",
                    done, row["heldout/nll"], 100 * row["heldout/accuracy"], self.config.model.act_gamma,
                )  # fmt: skip
        progress.update(done, row if row and "loss/total" in row else None)

    def _summary(self, packs: list[dict], loader) -> None:
        """What this run is, in a few lines, before its first step."""
        shares = check_observations(packs, self.tokenizer, self.config.data.max_unknown_share)
        self.flops = flops_per_turn(self.objective.network.config, packs[0])
        if not self.main:
            return
        network, batch, world = self.objective.network, self.config.batch, self.accelerator.num_processes
        parts = {**network.model.count_parameters(), **network.count_parameters()}
        parts.pop("model")
        turns = packs[0]["words"].shape[0]
        lines = [
            "parameters: " + ", ".join(f"{name} {count / 1e6:.2f}M" for name, count in parts.items()),
            "FLOPs per turn, forward: "
            + ", ".join(f"{name} {count / 1e6:.2f}M" for name, count in self.flops.items() if name != "train")
            + f"; a training step {self.flops['train'] / 1e6:.2f}M",
            f"attention: {network.attention}; precision: {self.accelerator.mixed_precision}; "
            f"device: {self.accelerator.device}; processes: {world} ({self.accelerator.distributed_type.value})",
            f"step: {batch.battles} battles × {batch.accumulate} micro-batches × {world} processes; packs of {turns} "
            f"turns, {turns * batch.accumulate * world} turns a step; {self.total} steps",
            "battles: " + ", ".join(f"{name} {count}" for name, count in self.data_report.files.items())
            + f"; held out {len(self.heldout)}; rejected {len(self.data_report.rejects)}",
            f"words: unknown {100 * shares['data/unknown_words']:.3f}%, padding "
            f"{100 * shares['data/padding_words']:.3f}%, <blank> {100 * shares['data/blank_words']:.1f}%",
        ]  # fmt: skip
        log.info("%s", "\n".join(lines))


class Clock:
    """Battles and turns trained on, seconds passed and seconds spent waiting for data, since the last logged row."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.started, self.waited = time.monotonic(), 0.0
        self.battles = self.turns = self.rows = 0

    class _Waiting:
        def __init__(self, clock):
            self.clock = clock

        def __enter__(self):
            self.entered = time.monotonic()

        def __exit__(self, *_):
            self.clock.waited += time.monotonic() - self.entered

    def waiting(self) -> "Clock._Waiting":
        return Clock._Waiting(self)

    def count(self, packs: list[dict]) -> None:
        for pack in packs:
            self.battles += int((pack["windows"][:, 0] >= 0).sum())
            self.turns += int(pack["valid"].sum())
            self.rows += pack["valid"].shape[0]

    def shares(self, accelerator) -> dict[str, torch.Tensor]:
        """Sums for `reduce_to_host`: over processes they are totals, or means where divided by their number."""
        world, device = accelerator.num_processes, accelerator.device
        waited = self.waited / max(time.monotonic() - self.started, 1e-9)
        values = {
            "_battles": self.battles,
            "_turns": self.turns,
            "data/padding": (1 - self.turns / max(self.rows, 1)) / world,
            "data/wait_share": waited / world,
        }
        return {name: torch.tensor(float(value), device=device) for name, value in values.items()}

    def take_seconds(self) -> float:
        seconds = time.monotonic() - self.started
        self.restart()
        return seconds


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat
