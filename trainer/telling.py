"""What a run tells the world while it goes: its log, trackers, the terminal, pushes to the Hub."""

import json
import logging
from pathlib import Path

from trainer.config import to_tree
from trainer.metrics import Meter, Progress
from trainer.provenance import about
from trainer.publish import Publisher
from trainer.tracking import Trackers
from trainer.training_log import CsvLog, hours_until, read_json
from trainer.versions import code_changes
from trainer.wording import ABOUT, CODE

log = logging.getLogger(__name__)


class Telling:
    """Every process of `run` makes one when it knows the step to start from; the main one's alone says anything."""

    def __init__(self, run, start: int):
        config = run.config
        self.main, self.gamma, self.path = run.main, config.model.act_gamma, run.output / "training_log.csv"
        if self.main:
            run.output.mkdir(parents=True, exist_ok=True)
            (run.output / "run_config.json").write_text(json.dumps(to_tree(config), indent=1))
            known = _known(run, start)
            (run.output / ABOUT).write_text(json.dumps(known, indent=1))
            keep_code(run.output / CODE)
            self.csv = CsvLog(self.path, start)
            self.trackers = Trackers(config.log, run.output, start, known)
            # Of another run's checkpoint, that run's: its steps are among those that were paid for.
            before = 0.0 if run.resumed is None else hours_until(run.resumed.parent / self.path.name, start)
            self.meter = Meter(max(self.csv.hours, before), config.cost.dollars_per_hour)
            self.publisher = Publisher(config.hub, run.output, start, run.course.total)
            run.saver.written = self.publisher.offer
        self.progress = Progress(run.course.total, start, self.gamma, self.main and config.log.progress)

    def tell(self, row: dict | None, done: int) -> None:
        """Step `done` (from 1) is done; `row`: its figures, where it is logged or was evaluated."""
        if row is not None and self.main:
            row |= self.meter.row()
            self.csv.write(row)
            self.trackers.log(row, done)
            if "heldout/nll" in row:
                log.info(
                    "step %d held-out NLL %.4f, top-1 %.1f%% at γ = %s",
                    done, row["heldout/nll"], 100 * row["heldout/accuracy"], self.gamma,
                )  # fmt: skip
        self.progress.update(done, row if row and "loss/total" in row else None)

    def go_back(self, step: int) -> None:
        """The run goes on from `step`, an earlier one: rows behind it are dropped."""
        if self.main:
            self.csv = CsvLog(self.path, step)

    def finish(self) -> None:
        """Close the trackers; nothing is told after it."""
        if self.main:
            self.trackers.finish()


def keep_code(file: Path) -> None:
    """The edits that a commit's hash does not tell of: without them nobody could repeat a run of an objective tried."""
    if changes := code_changes():
        file.write_text(changes, encoding="utf-8")
    else:
        file.unlink(missing_ok=True)  # of a start before this one


def _known(run, start: int) -> dict:
    """What the run is made of, for its folder and its trackers."""
    processes, device = run.accelerator.num_processes, run.accelerator.device
    known = about(run.config, run.commit, processes, device, run.dataset, run.data_report)
    known["changes"] = run.changes
    if start:  # what it was trained on so far came from somewhere too
        try:
            before = (read_json(run.resumed.parent / ABOUT) or {}).get("data", {}).get("origins", [])
        except ValueError as error:  # a full disk kept half of it: no reason to lose the training
            log.warning("%s; what it said of the data's origins is lost", error)
            before = []
        here = known["data"]["origins"]
        known["data"]["origins"] = [*(origin for origin in before if origin not in here), *here]
    return known
