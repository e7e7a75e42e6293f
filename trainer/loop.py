"""A run from its configuration to the agent that it leaves behind. The step itself is in `step.py`."""

import json
import logging
import math
import os
import socket
import zlib
from itertools import islice
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from data.dataset import BattleDataset
from data.loader import make_loader, shape_for
from data.tokenizer import Tokenizer
from model.configuration_turnwise import TurnwiseConfig
from trainer import checkpoint, publish
from trainer.average import WeightAverage
from trainer.changes import changed, other_heldout, refuse_a_finished_run
from trainer.config import RunConfig, to_tree
from trainer.evaluate import as_text, calibrate
from trainer.finetune import starting_model
from trainer.flops import flops_per_turn, peak_flops
from trainer.guard import SkipLedger, SpikeGuard, TooManySkipsError
from trainer.heldout import all_packs, evaluate_dataset, quick_score
from trainer.hub import copy_model
from trainer.lock import lock_output
from trainer.metrics import Clock, CsvLog, FilterWarning, Meter, Profiler, Progress, reduce_to_host
from trainer.objective import OfflineRL, compile_forward
from trainer.optim import build_optimizer, learning_rate
from trainer.provenance import ABOUT, about
from trainer.publish import Publisher
from trainer.saver import Saver
from trainer.setup import build_accelerator, build_network, check_observations, check_stamps
from trainer.sharding import gathered, shard
from trainer.state import scatter
from trainer.step import TrainStep
from trainer.stop import STOPPED, StopRequest
from trainer.summary import summary
from trainer.tracking import Trackers
from trainer.watchdog import Watchdog

log = logging.getLogger(__name__)
WORKER_RESTARTS = 3  # of a loader whose worker process was killed, at one step


class Run:
    """One training run; `train()` does all of it and returns an exit code."""

    def __init__(self, config: RunConfig, stop: StopRequest | None = None):
        self.asked = to_tree(config)  # before it is scaled to the world, and before a model to start from adds to it
        self.stop = stop or StopRequest()
        # First of all: the processes' first meeting, in there, can wait for one that is gone.
        self.watchdog = Watchdog(Path(config.output), config.timeout_minutes * 60)
        self.watchdog.start()
        self.accelerator, config = build_accelerator(config)
        self.config, self.output = config, Path(config.output)
        self.main = self.accelerator.is_main_process
        self.lock = lock_output(self.output, self.accelerator)
        publish.check(config.hub)
        with self.accelerator.local_main_process_first():
            start = starting_model(config)
        if start is not None:
            self.config = config = start.config
        self.tokenizer = Tokenizer.load(config.data.vocabulary)
        with self.accelerator.main_process_first():
            # The first process fills the index's cache; the others map it.
            self.dataset = BattleDataset(config.data, self.tokenizer, "train")
            self.heldout = BattleDataset(config.data, self.tokenizer, "heldout")
        self.judged = self.heldout.some(config.eval.battles)  # at each evaluation on the way
        self.data_report = self.dataset.inspect()
        network = build_network(config, self.tokenizer, self.accelerator.device, start)
        self.objective = OfflineRL(network, config.objective)
        self.objective.gammas = self.objective.gammas.to(self.accelerator.device)
        self.objective.targets.to(self.accelerator.device)
        self.average = WeightAverage(network, config.optim.ema) if config.optim.ema > 0 else None
        self.total = self._total_steps()
        self.best: dict | None = None  # {"nll", "step"} of the best held-out evaluation so far
        self.data_offset, self.went_back, self.step_done = 0, False, 0
        self._prepare()

    def _prepare(self) -> None:
        config, accelerator = self.config, self.accelerator
        if accelerator.device.type == "cuda" if config.compile is None else config.compile:
            compile_forward(self.objective, mode="reduce-overhead" if config.cuda_graphs else None)
        sharded = config.parallel == "fsdp2"
        if sharded:
            shard(self.objective, accelerator.num_processes, accelerator.device.type)
        optimizer = build_optimizer(self.objective, config.optim)
        if accelerator.distributed_type == "DEEPSPEED":
            self.module, self.optimizer = accelerator.prepare(self.objective, optimizer)
        else:
            # `evaluation_mode`: precision alone, no DDP around what is sharded.
            self.module = accelerator.prepare_model(self.objective, evaluation_mode=sharded)
            self.optimizer = optimizer
        self.spikes = None if config.guard.spike is None else SpikeGuard(config.guard, accelerator.device)
        parts = (self.module, self.objective, self.optimizer)
        self.step = TrainStep(accelerator, *parts, config.optim, config.seed, self.total, self.spikes, self.average)
        self.skips = SkipLedger(self.output, config.guard, accelerator.process_index, self.dataset.path)
        self.saver = Saver(
            self.output, accelerator, (*parts, self.average), self.objective.network, self.tokenizer,
            config.checkpoint.keep, config.checkpoint.background,
        )  # fmt: skip

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
        """Train to the end, or until told to stop; returns the exit code. Raises CheckpointError, TooManySkipsError."""
        self.stop.training = True
        try:
            code = self._train()
            self.saver.finish()
        except Exception:
            if self.accelerator.num_processes > 1:
                log.error("%s failed", self._who())
            raise
        finally:
            self.stop.training = False
            self.watchdog.stop()
        if code and self.main:
            # Before any process ends: a launcher that sees one end badly ends the others.
            self.trackers.finish()
        # From here on the main process works alone: the others neither wait for it nor time out.
        self.accelerator.wait_for_everyone()
        self.accelerator.state.destroy_process_group()
        if code == 0 and self.main:
            self._finish()
        if self.main:
            self.trackers.finish()
        self.accelerator.end_training()
        return code

    def _train(self) -> int:
        config, accelerator = self.config, self.accelerator
        step = start = self._resume()
        csv_log = CsvLog(self.output / "training_log.csv", start) if self.main else None
        self._start_telling(start, csv_log)
        progress = Progress(self.total, start, config.model.act_gamma, self.main and config.log.progress)
        warner = FilterWarning(config.objective.filter)
        self._open_packs(start)
        clock, order = Clock(self.tokenizer.unknown_id), 0
        profiler = Profiler(config.log.profile if self.main else 0, self.output / "profile")
        while step < self.total:
            with clock.waiting():
                micro = self._next_packs(step)
            if step == start:
                self._summarize(micro)
            self.module.train()
            profiler.step_begins(step - start)
            done = self.step_done = step + 1
            logging_step = done % config.log.every == 0 or done in (self.total, start + 1)
            metrics = self.step(step, [self._to_device(pack) for pack in micro], detailed=logging_step)
            self.skips.note(done, metrics["optim/skipped"], micro)
            clock.count(micro)
            for pack in micro:
                order = zlib.crc32(pack["windows"].numpy().tobytes(), order)
            row = None
            if logging_step:
                row = reduce_to_host(
                    accelerator, metrics | clock.shares(accelerator), self.objective.network.config.gammas
                )
                skipped = self.skips.review()
                # Which windows were trained on since the last row, as one number: equal for a run and its resumed twin.
                row = {
                    "step": done,
                    "data/order_crc32": order,
                    "optim/lr": learning_rate(step, self.total, config.optim),
                    **row,
                    "optim/skipped": len(skipped),
                    "checkpoint/held_s": self.saver.take_held_s(),
                }
                row = self._speed(row, clock)
                warner.check(row, done)
                if skipped and self.main:
                    log.warning("updates skipped at steps %s: not finite, or a spike; see %s", skipped, self.skips.file)
                order = 0
            stopping = self._stop_agreed(done)
            wants_eval = done == self.total or (config.eval.every and done % config.eval.every == 0)
            if wants_eval and not stopping:
                row = {**(row or {"step": done}), **self._evaluate(done)}
                clock.restart()
            self._tell(row, csv_log, progress, done)
            if self.skips.too_many:
                step = self._go_back(done)
                csv_log, order = CsvLog(self.output / "training_log.csv", step) if self.main else None, 0
                clock.restart()
                continue
            # None is written in a stretch of skipped updates: going back must lead out of it.
            due = done % config.checkpoint.every == 0 and not self.skips.in_a_row
            if wants_eval or stopping or due:
                self._save(done, owes_evaluation=bool(wants_eval and stopping))
                clock.restart()
            if stopping:
                progress.close()
                log.warning("told to stop: saving step %d; start again with the same command to go on", done)
                return STOPPED
            step = done
        progress.close()
        if self.best is None:
            # Resumed at or past the end, from a checkpoint that no evaluation had reached.
            self._evaluate(step)
            self._save(step, owes_evaluation=False)
        return 0

    def _resume(self) -> int:
        """The step to start at, its state put into the parts."""
        choice = self.config.resume
        folder = self._newest_valid() if choice == "auto" else None if choice == "never" else Path(choice)
        if folder is None:
            return 0
        if not (folder / "model" / "config.json").exists():
            raise checkpoint.CheckpointError(
                f"resume={choice}: no checkpoint there: give auto, never, or a run's folder step_…"
            )
        saved = TurnwiseConfig.from_pretrained(folder / "model")
        check_stamps(saved, self.config.data, self.tokenizer, str(folder))
        run = self._load(folder)
        changes = changed(run.get("asked", {}), self.asked)
        refuse_a_finished_run(run["step"], self.total, changes, self.config.output)
        if changes and self.main:
            log.warning("other settings than the checkpoint's: %s", "; ".join(f"{k}: {c}" for k, c in changes.items()))
        if other_heldout(changes):
            self.best = None
        if run.get("owes_evaluation"):
            # It was stopped where an evaluation was due: made up for now, so that its best checkpoint is the same.
            self._evaluate(run["step"])
            self._save(run["step"], owes_evaluation=False)
        if self.main:
            log.info("resumed from %s at step %d", folder, run["step"])
        return run["step"]

    def _load(self, folder: Path) -> dict:
        state, run = checkpoint.read(folder)
        try:
            scatter(state, self.accelerator, self.module, self.objective, self.optimizer, self.average)
        except ValueError as error:
            raise checkpoint.CheckpointError(
                f"{folder}: {error}: its model is not that of this run's configuration: keep model.* as it was, or "
                "give another output"
            ) from error
        # An earlier version wrote the likelihood alone, beside a file that said where.
        self.best = run["best"] if isinstance(run["best"], dict) else None
        self.data_offset = run.get("data_offset", 0)
        if self.spikes is not None and run.get("spikes") is not None:
            self.spikes.state.copy_(torch.tensor(run["spikes"]))
        return run

    def _newest_valid(self) -> Path | None:
        """As the main process finds it, so that all start alike; the others need not read every file."""
        found = [checkpoint.newest_valid(self.output) if self.main else None]
        return broadcast_object_list(found)[0]

    def _save(self, step: int, owes_evaluation: bool) -> None:
        self.saver.save(
            step,
            {
                "config": to_tree(self.config),
                "asked": self.asked,
                "best": self.best,
                "owes_evaluation": owes_evaluation,
                "data": {"files": self.data_report.files},
                "data_offset": self.data_offset,
                "spikes": None if self.spikes is None else self.spikes.state.tolist(),
            },
        )

    def _evaluate(self, done: int) -> dict[str, float]:
        """Held-out scores (of the averaged weights, where there is an average); the best so far is noted, to be saved
        with this step."""
        with gathered(self.objective):
            network = self.objective.network if self.average is None else self.average.network
            scores = quick_score(network, self.judged, self.accelerator)
        if self.best is None or scores["heldout/nll"] < self.best["nll"]:
            self.best = {"nll": scores["heldout/nll"], "step": done}
        return scores

    def _open_packs(self, step: int) -> None:
        self.loader = make_loader(
            self.dataset, self.config.batch, seed=self.config.seed, rank=self.accelerator.process_index,
            world=self.accelerator.num_processes, start_step=step + self.data_offset,
            max_steps=self.total + self.data_offset,
        )  # fmt: skip
        self.packs = iter(self.loader)

    def _next_packs(self, step: int) -> list[dict]:
        """The step's micro-batches. A loader's worker that was killed costs a restart of the loader, not the run."""
        for _ in range(WORKER_RESTARTS):
            try:
                return list(islice(self.packs, self.config.batch.accumulate))
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                log.warning("step %d: %s; the loader starts again at this step", step, error)
                self._open_packs(step)
        return list(islice(self.packs, self.config.batch.accumulate))

    def _go_back(self, done: int) -> int:
        """Too many updates in a row were skipped: the last checkpoint, and data beyond the bad stretch. Returns the
        step to go on from. Raises TooManySkipsError the second time."""
        words = (
            f"{self.skips.in_a_row} updates in a row were skipped up to step {done}; their battles: {self.skips.file}"
        )
        self.saver.finish()
        folder = self._newest_valid()
        if self.went_back or folder is None:
            again = "once more, after going back once" if self.went_back else "with no checkpoint to go back to"
            raise TooManySkipsError(f"{words}: {again}. Look at those battles (data.prepare show), or lower optim.lr")
        self.went_back = True
        run = self._load(folder)
        self.data_offset += done - run["step"]
        self.skips.in_a_row = 0
        self._open_packs(run["step"])
        log.warning("%s; back to %s, with other data ahead", words, folder)
        return run["step"]

    def _who(self) -> str:
        accelerator = self.accelerator
        return (
            f"process {accelerator.process_index} of {accelerator.num_processes} (pid {os.getpid()} on "
            f"{socket.gethostname()}), at step {self.step_done},"
        )

    def _finish(self) -> None:
        """The chosen checkpoint's model, calibrated and evaluated, becomes OUTPUT/model."""
        target, best = self.output / "model", checkpoint.step_folder(self.output, self.best["step"])
        likeliest = self.config.eval.choose == "likelihood"
        if likeliest and not best.exists():
            log.warning("the best checkpoint, step %d, was never written (disk full?): the newest takes its place",
                        self.best["step"])  # fmt: skip
            likeliest = False
        chosen = best if likeliest else checkpoint.newest_valid(self.output)
        checkpoint.verify(chosen)
        copy_model(chosen / "model", target)
        network = checkpoint.load_network(target).to(self.accelerator.device)
        network.attention = self.objective.network.attention
        calibration = calibrate(network, all_packs(self.dataset.some(self.config.eval.calibration_battles)))
        (target / "calibration.json").write_text(json.dumps(calibration, indent=1))
        result = evaluate_dataset(network, self.heldout, self.dataset, calibration)
        (self.output / "evaluation.json").write_text(json.dumps(result, indent=1))
        log.info("%s\n\nthe agent is in %s", as_text(result), target)
        if self.config.log.report:
            from trainer.report import report_of_run  # draws with matplotlib: a second that no start need wait for

            report_of_run(self.output)
        self.publisher.finish(target, self.total)

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

    def _start_telling(self, start: int, csv_log: CsvLog | None) -> None:
        """What the main process tells the world of the run: trackers, time and cost, pushes to the Hub."""
        if not self.main:
            return
        config, accelerator = self.config, self.accelerator
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "run_config.json").write_text(json.dumps(to_tree(config), indent=1))
        known = about(config, accelerator.num_processes, accelerator.device, self.dataset, self.data_report)
        (self.output / ABOUT).write_text(json.dumps(known, indent=1))
        self.trackers = Trackers(config.log, self.output, start, known)
        self.meter = Meter(csv_log.hours, config.cost.dollars_per_hour)
        self.publisher = Publisher(config.hub, self.output, start, self.total)
        self.saver.written = self.publisher.offer

    def _summarize(self, micro: list[dict]) -> None:
        shares = check_observations(micro, self.tokenizer, self.config.data.max_unknown_share)
        whole = self.config.objective.target == "network"
        self.flops = flops_per_turn(self.objective.network.config, micro[0], whole)
        if self.main:
            log.info("%s", summary(self, micro, shares))

    def _speed(self, row: dict, clock: "Clock") -> dict:
        """Speeds since the last logged row, over all processes."""
        seconds = clock.take_seconds()
        row["speed/battles_per_s"] = row.pop("_battles") / seconds
        row["speed/turns_per_s"] = row.pop("_turns") / seconds
        if self.accelerator.device.type == "cuda":
            name = torch.cuda.get_device_name()
            peak = peak_flops(name)
            if peak:
                per_gpu = row["speed/turns_per_s"] / self.accelerator.num_processes
                row["speed/mfu"] = self.flops["train"] * per_gpu / peak
        return row

    def _tell(self, row: dict | None, csv_log: CsvLog | None, progress: Progress, done: int) -> None:
        if row is not None and self.main:
            row |= self.meter.row()
            csv_log.write(row)
            self.trackers.log(row, done)
            if "heldout/nll" in row:
                log.info(
                    "step %d held-out NLL %.4f, top-1 %.1f%% at γ = %s",
                    done, row["heldout/nll"], 100 * row["heldout/accuracy"], self.config.model.act_gamma,
                )  # fmt: skip
        progress.update(done, row if row and "loss/total" in row else None)
