"""Experiment trackers, through accelerate's: wandb and tensorboard. `training_log.csv` is written whatever they do.

A tracker that fails is said to have failed and left out from there on; training never stops for one.
"""

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from trainer.config import LogConfig

log = logging.getLogger(__name__)
RUN_ID = "wandb_run.json"  # in OUTPUT: a resumed run goes on under the same id
WANDB_SECONDS = 60  # to reach its server at the start
FINISH_SECONDS = 120  # to hand in what is still to be sent at the end


class Trackers:
    """The trackers that a run asked for, started; of the main process alone.

    start: step that the run goes on from (0: a new run). about: what is kept beside the metrics (`provenance.about`).
    """

    def __init__(self, config: LogConfig, output: Path, start: int, about: dict):
        self.config, self.output, self.start, self.about = config, output, start, about
        self.active: dict[str, GeneralTracker] = {}
        for name, wanted, begin in (
            ("wandb", config.wandb, self._wandb),
            ("tensorboard", config.tensorboard, self._tensorboard),
        ):
            if wanted:
                self._guarded(name, "start", begin)

    def log(self, row: dict[str, float], step: int) -> None:
        """Hand a row of metrics, `step` among them, to every tracker that still works."""
        for name, tracker in list(self.active.items()):
            # wandb leaves out a row whose step is not its greatest, as all are for a while after the guard went back:
            # its own count goes on, and the pictures' axis is the row's.
            known = None if name == "wandb" else step
            self._guarded(name, "log", lambda tracker=tracker, known=known: tracker.log(row, step=known))

    def finish(self) -> None:
        """Close them; one that does not come to an end is left behind."""
        for name, tracker in list(self.active.items()):
            done = threading.Thread(
                target=self._guarded, args=(name, "finish", tracker.finish), daemon=True, name=f"finish {name}"
            )
            done.start()
            done.join(FINISH_SECONDS)
            if done.is_alive():
                log.warning("%s: not finished after %d s; left behind", name, FINISH_SECONDS)
        self.active.clear()

    def _guarded(self, name: str, verb: str, call: Callable[[], GeneralTracker | None]) -> None:
        # Whatever a tracker raises (its server, its files, its own faults), training is worth more than it.
        try:
            made = call()
        except Exception as error:
            self.active.pop(name, None)
            log.warning(
                "%s failed to %s (%s: %s); training goes on without it, training_log.csv has every row",
                name, verb, type(error).__name__, error,
            )  # fmt: skip
        else:
            if made is not None:
                self.active[name] = made

    def _wandb(self) -> GeneralTracker:
        import wandb  # here: it takes a second to import, and not every run wants it

        common = {
            "id": self._run_id(),
            "name": self.config.name or self.output.resolve().name,
            "dir": os.environ.get("WANDB_DIR", str(self.output)),
            # Its capture of the terminal would tear the progress display.
            "settings": wandb.Settings(console="off", init_timeout=WANDB_SECONDS),
        }
        mode = os.environ.get("WANDB_MODE")
        try:
            # Not left to start, which would ask on a terminal who is there, and the run wait for an answer; nor is the
            # key proved here, for which a server has ten seconds.
            mode = mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
            online = {"resume": "allow"} if mode == "online" else {}
            tracker = WandBTracker(self.config.project, **common, **online, mode=mode)
            tracker.start()
        except wandb.Error as error:
            if mode not in (None, "online"):
                raise
            log.warning(
                "wandb is not reached (%s); it goes on offline: `wandb sync %s/wandb/offline-run-*` hands it in later",
                error, common["dir"],
            )  # fmt: skip
            wandb.teardown()  # its service still holds the id that it could not take up
            tracker = WandBTracker(self.config.project, **common, mode="offline")
            tracker.start()
        tracker.run.define_metric("*", step_metric="step")
        tracker.store_init_configuration(self.about)
        return tracker

    def _run_id(self) -> str:
        path = self.output / RUN_ID
        if self.start > 0 and path.exists():
            return json.loads(path.read_text(encoding="utf-8"))["id"]
        chosen = secrets.token_hex(4)
        path.write_text(json.dumps({"id": chosen, "project": self.config.project}), encoding="utf-8")
        return chosen

    def _tensorboard(self) -> GeneralTracker:
        # Rows past the step that a run resumes from are hidden: they are written again.
        tracker = TensorBoardTracker("", str(self.output / "tensorboard"), purge_step=self.start + 1)
        tracker.start()
        tracker.tracker.add_text("about", f"```json\n{json.dumps(self.about, indent=1)}\n```", self.start)
        return tracker
