"""Pushing a run's agent to the Hub without stopping it: in the background while it trains, and once at its end.

A push that fails is tried again, and then said and left; no run ends by one.
"""

import logging
import os
import shutil
import threading
import time
from pathlib import Path

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from trainer.config import HubConfig
from trainer.errors import ConfigError
from trainer.upload import push

log = logging.getLogger(__name__)
WAITS = (10, 30, 120, 300)  # seconds before each further attempt
STAGED = ".pushing"


def check(config: HubConfig) -> None:
    """Raises ConfigError where pushing is asked for without a name, or with one that cannot be one; to be called before
    a run starts."""
    if config.push and not config.to:
        raise ConfigError("hub.push is true and hub.to is null: give hub.to=NAME/MODEL")
    if config.push:
        try:
            validate_repo_id(config.to)
        except HFValidationError as error:
            raise ConfigError(f"hub.to={config.to}: is no name on the Hub ({error}): give hub.to=NAME/MODEL") from error


class Publisher:
    """Pushes what `offer` is given, one push at a time, in a thread.

    output: the run's folder, which the card is made from. start, total: its first and last step.
    """

    def __init__(self, config: HubConfig, output: Path, start: int = 0, total: int | None = None):
        self.config, self.output, self.total = config, output, total
        self.last, self.thread = start, None
        self.pushed: list[int] = []
        if config.to and not config.push:
            log.warning("hub.to=%s: nothing is pushed there without hub.push=true", config.to)
        if config.push:
            disable_progress_bars()  # they would tear the run's own display
            if not get_token():
                log.warning("hub.push: nobody is signed in here, so pushes will fail: `hf auth login`, or set HF_TOKEN")

    def offer(self, checkpoint: Path, step: int) -> None:
        """A checkpoint was written: push its model if `hub.every` steps have passed and no push is under way."""
        busy = self.thread is not None and self.thread.is_alive()
        # The last checkpoint is followed by the finished agent.
        last = self.total is not None and step >= self.total
        if not (self.config.push and self.config.every) or step - self.last < self.config.every or busy or last:
            return
        self.last = step
        staged = self.output / STAGED
        try:
            shutil.rmtree(staged, ignore_errors=True)
            # Links: the checkpoint may be pruned while its files go up.
            shutil.copytree(checkpoint / "model", staged, copy_function=_link)
        except OSError as error:
            log.warning("step %d is not pushed: its model could not be staged (%s)", step, error)
            return
        self.thread = threading.Thread(target=self._push, args=(staged, step), daemon=True, name=f"push step {step}")
        self.thread.start()

    def finish(self, model: Path, step: int) -> None:
        """The run is done: wait for a push under way, then push the agent that it leaves."""
        if not self.config.push:
            return
        if self.thread is not None:
            self.thread.join()
        self._push(model, step)
        shutil.rmtree(self.output / STAGED, ignore_errors=True)

    def _push(self, model: Path, step: int) -> None:
        config = self.config
        # Nobody is let in by trying again: that would hold up the run's end for minutes.
        for wait in (*(WAITS if get_token() else ()), None):
            # Whatever goes wrong on the way (network, rights, the Hub, a file), the run is worth more than its push.
            try:
                address = push(model, config.to, config.licence, config.private, self.output, f"Step {step}")
            except Exception as error:
                if wait is None:
                    log.warning(
                        "the push of step %d to %s failed (%s: %s); by hand: python -m trainer.hub push %s --to %s",
                        step, config.to, type(error).__name__, error, self.output, config.to,
                    )  # fmt: skip
                    return
                log.warning("push of step %d: %s; again in %g s", step, error, wait)
                time.sleep(wait)
            else:
                self.pushed.append(step)
                log.info("step %d is on the Hub: %s", step, address)
                return


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
