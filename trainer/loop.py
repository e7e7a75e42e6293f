"""A run from its configuration to the agent that it leaves behind. The step itself is in `step.py`."""

import logging
import os
import socket
import zlib
from contextlib import suppress
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from data.sampler import Drawn
from data.tokenizer import Tokenizer
from model.configuration_turnwise import TurnwiseConfig
from trainer import advice, checkpoint, publish
from trainer.agreement import Agreement
from trainer.average import WeightAverage
from trainer.changes import changed, changes_since, on_the_way, other_heldout, refuse_a_finished_run, refuse_differing
from trainer.config import RunConfig, to_tree
from trainer.course import Course
from trainer.earlier import make_way
from trainer.errors import ConfigError
from trainer.finetune import Start, never_seen, say_what_it_has_seen, starting_model
from trainer.finish import finish
from trainer.flops import flops_per_turn
from trainer.guard import SkipLedger, SpikeGuard, TooManySkipsError
from trainer.launcher import Launcher
from trainer.lock import lock_output
from trainer.metrics import FilterWarning, Profiler
from trainer.objective import OfflineRL, compile_forward
from trainer.optim import build_optimizer, learning_rate
from trainer.provenance import licence
from trainer.quick_score import QuickScore
from trainer.rows import Clock, Rows
from trainer.saver import Saver
from trainer.setup import OTHER_MODEL, build_network, check_meaning, check_observations, check_stamps, open_battles
from trainer.sharding import gathered, shard
from trainer.state import scatter
from trainer.step import TrainStep
from trainer.stop import STOPPED, StopRequest
from trainer.summary import summary
from trainer.telling import Telling
from trainer.versions import git_commit
from trainer.watchdog import Watchdog
from trainer.world import build_accelerator, compiles

log = logging.getLogger(__name__)


class Run:
    """One training run; `train()` does all of it and returns an exit code."""

    def __init__(self, config: RunConfig, stop: StopRequest | None = None):
        self.asked = to_tree(config)  # before it is scaled to the world, and before a model to start from adds to it
        self.stop, self.launcher = stop or StopRequest(), Launcher()
        # First of all: the processes' first meeting, in there, can wait for one that is gone.
        self.watchdog = Watchdog(Path(config.output), config.timeout_minutes * 60)
        self.watchdog.start()
        self.accelerator, config = build_accelerator(config)
        refuse_differing(self.asked, self.accelerator)
        self.config, self.output = config, Path(config.output)
        self.main = self.accelerator.is_main_process
        self.lock = lock_output(self.output, self.accelerator)
        publish.check(config.hub)
        if self.main:
            advice.warn_of_idle_settings(config)
        self.resumed = self._to_resume()
        with self.accelerator.local_main_process_first():
            start = starting_model(config, self.resumed)
        if start is not None:
            self.config = config = start.config
        self.tokenizer = Tokenizer.load(config.data.vocabulary)
        self.dataset, self.heldout = open_battles(config.data, self.tokenizer, self.accelerator)
        judged = self.heldout.some(config.eval.battles)
        for name, some in (("battles", judged), ("final_battles", self.heldout.some(config.eval.final_battles))):
            if not some.cloned.any():  # told now: the first evaluation may be a night away, the last a week
                raise ConfigError(
                    f"eval.{name}={len(some)}: data.clone {config.data.clone!r} holds for none of the held-out battles "
                    f"that evaluations read: give more eval.{name}, or null for all"
                )
        self.judge = QuickScore(judged, self.accelerator, max(32, config.batch.battles))
        self.data_report = self.dataset.inspect()
        self.names = [self.dataset.names(), self.heldout.names()]
        network = build_network(config, self.tokenizer, self.accelerator.device, start)
        network.config.licence = licence(self.dataset, self._licence_before(start))
        self.objective = OfflineRL(network, config.objective)
        self.objective.gammas = self.objective.gammas.to(self.accelerator.device)
        self.objective.targets.to(self.accelerator.device)
        self.average = WeightAverage(network, config.optim.ema) if config.optim.ema > 0 else None
        self.course = Course(self.dataset, config, self.accelerator.process_index, self.accelerator.num_processes)
        if self.main:
            advice.warn_of_late_starts(config, self.course.total)
            advice.warn_of_unsaved(self.objective)
        self.best: dict | None = None  # {"nll", "step"} of the best held-out evaluation so far
        self.owed: dict | None = None  # scores that the run before this process was stopped before it took
        self.went_back, self.step_done = False, 0
        self.commit, self.changes = git_commit(), []  # and what was changed on the way here
        # Which windows were trained on so far, as one number: equal for a run and its resumed twin.
        self.order = 0
        self._prepare()

    def _prepare(self) -> None:
        config, accelerator = self.config, self.accelerator
        if compiles(config, accelerator):
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
        self.step = TrainStep(
            accelerator, *parts, config.optim, config.seed, self.course.total, self.spikes, self.average
        )
        self.skips = SkipLedger(self.output, config.guard, accelerator, self.dataset.path)
        gammas = self.objective.network.config.gammas
        self.warner = FilterWarning(config.objective, gammas)
        self.clock = Clock(self.tokenizer.unknown_id, accelerator.device)
        self.rows = Rows(accelerator, gammas, self.clock)
        self.agreement = Agreement(accelerator, self.rows.late)
        self.saver = Saver(
            self.output, accelerator, (*parts, self.average), self.objective.network, self.tokenizer,
            config.checkpoint.keep, config.checkpoint.background,
        )  # fmt: skip

    def train(self) -> int:
        """Train to the end, or until told to stop; returns the exit code. Raises CheckpointError, TooManySkipsError."""
        self.stop.training = True
        try:
            code = self._train()
            self.saver.finish()
        except Exception:
            self._tell_last_row()
            if self.accelerator.num_processes > 1:
                log.error("%s failed", self._who())
            raise
        finally:
            self.stop.training = False
            self.watchdog.stop()
        if code == 0 and self.main and self.stop.asked:
            # While the last step was judged and saved: its agent is made by the next start, which may take minutes.
            code = self._told_to_stop(self.course.total)
        if code:
            # Before any process ends: a launcher that sees one end badly ends the others.
            self.telling.finish()
        # From here on the main process works alone: the others neither wait for it nor time out.
        self.accelerator.wait_for_everyone()
        self.accelerator.state.destroy_process_group()
        if code == 0 and self.main:
            finish(self)
        self.telling.finish()
        self.accelerator.end_training()
        return code

    def _train(self) -> int:
        config = self.config
        step = start = self._resume()
        self.telling = Telling(self, start)
        self.telling.tell(self.owed, start)
        profiler = Profiler(config.log.profile if self.main else 0, self.output / "profile")
        self.clock.restart()
        while step < self.course.total:
            with self.clock.waiting():
                micro = self.course.micro(step)
            if step == start:
                self._summarize(micro)
            self.module.train()
            profiler.step_begins(step - start)
            done = self.step_done = step + 1
            logging_step = done % config.log.every == 0 or done in (self.course.total, start + 1)
            metrics = self.step(step, [self._to_device(pack) for pack in micro], detailed=logging_step)
            if (late := self._row()) is not None:  # of the step before: the device has this one to do by now
                self.telling.tell(late, step)
            self.skips.note(done, metrics["optim/skipped"], micro)
            self.clock.count(micro)
            for pack in micro:
                self.order = zlib.crc32(pack["windows"].numpy().tobytes(), self.order)
            if logging_step:
                rate = learning_rate(step, self.course.total, config.optim)
                self.rows.send({"step": done, "data/order_crc32": self.order, "optim/lr": rate}, metrics)
            stopping = self.agreement.stops(done, self.stop.asked or self.launcher.gone())
            ends = done == self.course.total
            wants_eval = ends or (config.eval.every and done % config.eval.every == 0)
            due = wants_eval or done % config.checkpoint.every == 0
            waits = due or stopping or self.skips.too_many
            row = self._row() if waits or not self.rows.late else None
            if waits:
                self.skips.review()
            if self.skips.in_a_row and not ends:
                # A stretch of skipped updates is not judged, and not kept but to stop: going back must lead out of it.
                wants_eval = due = False
            if wants_eval and not stopping:
                row = {**(row or {"step": done}), **self._evaluate(done)}
                self.clock.restart()
            self.telling.tell(row, done)
            if self.skips.too_many:
                step = self._go_back(done)
                self.telling.go_back(step)
                self.clock.restart()
                continue
            if due or stopping:
                self._save(done, owes_evaluation=bool(wants_eval and stopping))
                self.clock.restart()
            if stopping:
                self.telling.progress.close()
                profiler.close()
                return self._told_to_stop(done)
            step = done
        if self.best is None:
            # Resumed at the end, from a checkpoint that no evaluation by these settings had reached.
            self.telling.tell({"step": step, **self._evaluate(step)}, step)
            self._save(step, owes_evaluation=False)
        self.telling.progress.close()
        profiler.close()
        return 0

    def _told_to_stop(self, step: int) -> int:
        again = "" if self.config.resume == "auto" else " and resume=auto"
        why = "the launcher is gone" if self.launcher.gone() else "told to stop"
        log.warning("%s: saving step %d; start again with the same command%s to go on", why, step, again)
        return STOPPED

    def _row(self) -> dict | None:
        """The row on its way, complete, or None; what it has to say is said."""
        row = self.rows.read()
        if row is None:
            return None
        skipped = self.skips.take()
        row |= {"optim/skipped": len(skipped), "checkpoint/held_s": self.saver.take_held_s()}
        self.warner.check(row, row["step"])
        if self.main:
            self.course.say_what_is_dropped()
        if skipped and self.main:
            log.warning("updates skipped at steps %s: not finite, or a spike; see %s", skipped, self.skips.file)
        return row

    def _tell_last_row(self) -> None:
        """Of a run that fails: the row on its way may say why. A device that failed itself does not give it."""
        self.skips.alone = True
        with suppress(Exception):
            if (row := self._row()) is not None:
                self.telling.tell(row, row["step"])

    def _to_resume(self) -> Path | None:
        """The checkpoint that `resume` means, or None: from the beginning."""
        choice = self.config.resume
        if self.main:
            checkpoint.recover(self.output)
        if choice in ("auto", "never"):
            return self._newest_valid() if choice == "auto" else None
        if not (Path(choice) / "run.json").exists():  # a run's own folder holds a model too
            raise checkpoint.CheckpointError(
                f"resume={choice}: no checkpoint there: give auto, never, or a run's folder step_…"
            )
        return Path(choice)

    def _licence_before(self, start: Start | None) -> str | None:
        """What the weights that this run goes on from ask for: they keep it, whatever they are trained on next."""
        if start is not None or self.resumed is None:
            return start and start.licence()
        return TurnwiseConfig.from_pretrained(self.resumed / "model").licence

    def _resume(self) -> int:
        """The step to start at, its state put into the parts."""
        folder = self.resumed
        if folder is None:
            self._make_way(0)
            self.course.open(0)
            return 0
        saved = TurnwiseConfig.from_pretrained(folder / "model")
        check_stamps(saved, self.config.data, self.tokenizer, str(folder))
        check_meaning(saved, self.objective.network.config, str(folder))
        self.objective.network.config.heldout_share = never_seen(saved, self.config.data)
        run = self._load(folder)
        changes = changes_since(run, self.asked, self.data_report.files, self.names)
        refuse_a_finished_run(run["step"], self.course.total, changes, self.output)
        if self.main:
            say_what_it_has_seen(saved, self.config.data, str(folder))
        if changes and self.main:
            log.warning("other settings than the checkpoint's: %s", "; ".join(f"{k}: {c}" for k, c in changes.items()))
        self.changes = on_the_way(run, changes, self.commit)
        elsewhere = folder.resolve().parent != self.output.resolve()
        if other_heldout(changes) or elsewhere:
            self.best = None  # judged on other battles, or another run's
        self._make_way(0 if elsewhere else run["step"])
        if run.get("owes_evaluation"):
            # It was stopped where an evaluation was due: made up for now, so that its best checkpoint is the same.
            self.owed = {"step": run["step"], **self._evaluate(run["step"])}
            self._save(run["step"], owes_evaluation=False)
        if self.main:
            log.info("resumed from %s at step %d", folder, run["step"])
        return run["step"]

    def _make_way(self, step: int) -> None:
        if self.main:
            make_way(self.output, step, self.course.total)
        self.accelerator.wait_for_everyone()

    def _load(self, folder: Path, drawn: list[Drawn] | None = None) -> dict:
        """Put a checkpoint's state into the parts; in the data, go on behind what it had drawn, or behind `drawn`."""
        state, run = checkpoint.read(folder)
        try:
            scatter(state, self.accelerator, self.module, self.objective, self.optimizer, self.average)
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{folder}: {error}: {OTHER_MODEL}") from error
        # An earlier version wrote the likelihood alone, beside a file that said where.
        self.best = run["best"] if isinstance(run["best"], dict) else None
        self.skips.in_a_row, self.order = run.get("skipping", 0), run.get("order", 0)
        if self.spikes is not None:
            self.spikes.forget()
            if run.get("spikes") is not None and not changed(run.get("asked", {}), self.asked):
                self.spikes.state.copy_(torch.tensor(run["spikes"]))
        self.course.restore(run, drawn)
        self.step.total_steps = self.course.total
        return run

    def _newest_valid(self, sound: bool = False) -> Path | None:
        """As the main process finds it, so that all start alike; the others need not read every file."""
        found = [checkpoint.newest_valid(self.output, sound) if self.main else None]
        return broadcast_object_list(found)[0]

    def _save(self, step: int, owes_evaluation: bool) -> None:
        self.saver.save(
            step,
            {
                "config": to_tree(self.config),
                "asked": self.asked,
                "commit": self.commit,
                "changes": self.changes,
                "best": self.best,
                "owes_evaluation": owes_evaluation,
                "data": {"files": self.data_report.files, "names": self.names},
                **self.course.record(step),
                "order": self.order,
                "skipping": self.skips.in_a_row,
                "spikes": None if self.spikes is None else self.spikes.state.tolist(),
            },
        )

    def _evaluate(self, done: int) -> dict[str, float]:
        """Held-out scores (of the averaged weights, where there is an average); the best so far is noted, to be saved
        with this step."""
        with gathered(self.objective):
            network = self.objective.network if self.average is None else self.average.network
            scores = self.judge(network)
        if self.best is None or scores["heldout/nll"] < self.best["nll"]:
            self.best = {"nll": scores["heldout/nll"], "step": done}
        return scores

    def _go_back(self, done: int) -> int:
        """Too many updates in a row were skipped: the last checkpoint, and data beyond the bad stretch. Returns the
        step to go on from. Raises TooManySkipsError the second time."""
        words = (
            f"{self.skips.in_a_row} updates in a row were skipped up to step {done}; their battles: {self.skips.file}"
        )
        self.saver.wait()  # one that found no room leaves those before it to go back to
        folder = self._newest_valid(sound=True)
        if self.went_back or folder is None:
            again = "once more, after going back once" if self.went_back else "with no checkpoint to go back to"
            raise TooManySkipsError(f"{words}: {again}. Look at those battles (data.prepare show), or lower optim.lr")
        self.went_back, self.agreement = True, Agreement(self.accelerator, self.rows.late)
        run = self._load(folder, self.course.drawn(done))
        self._make_way(run["step"])  # one that a stop left in the stretch: it would be the newest again
        log.warning("%s; back to %s, with other data ahead", words, folder)
        return run["step"]

    def _who(self) -> str:
        accelerator = self.accelerator
        return (
            f"process {accelerator.process_index} of {accelerator.num_processes} (pid {os.getpid()} on "
            f"{socket.gethostname()}), at step {self.step_done},"
        )

    def _to_device(self, pack: dict) -> dict:
        return {key: value.to(self.accelerator.device, non_blocking=True) for key, value in pack.items()}

    def _summarize(self, micro: list[dict]) -> None:
        shares = check_observations(micro, self.tokenizer, self.config.data.max_unknown_share)
        whole = self.config.objective.target == "network"
        self.flops = flops_per_turn(self.objective.network.config, micro[0], whole)
        self.rows.flops_per_turn = self.flops["train"]
        if self.main:
            log.info("%s", summary(self, micro, shares))
            advice.warn_of_short_reach(self.config, self.course.total, self.dataset)
            advice.warn_of_idle_gpus(self, micro[0]["words"].shape[0])
