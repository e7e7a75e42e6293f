"""What a run tells while it goes: hours and dollars, warnings of its filter, the terminal, a profile."""

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers.utils.logging import disable_progress_bar

from trainer.objective import ObjectiveConfig
from trainer.wording import duration

log = logging.getLogger(__name__)
COMPARED_ROWS = 10  # of the log, at either end: one step's share is noise


class Meter:
    """Hours that a run has taken, those before a resume too, and the dollars they cost at `dollars_per_hour`."""

    def __init__(self, hours: float, dollars_per_hour: float | None):
        self.before, self.price, self.started = hours, dollars_per_hour, time.monotonic()

    def row(self) -> dict[str, float]:
        hours = self.before + (time.monotonic() - self.started) / 3600
        return {"time/hours": hours} | ({} if self.price is None else {"cost/dollars": hours * self.price})


class FilterWarning:
    """Says once per γ when the filter, once it is on, keeps under 2% or over 98% of the actions, so that the critic
    teaches nothing.

    And when it keeps less than half of what it kept as it came on while the policy's value stands above the recorded
    actions': cloning what its critics overrate lifts that value, and leaves ever fewer actions above it.
    """

    def __init__(self, config: ObjectiveConfig, gammas: Sequence[float]):
        self.active, self.begins, self.said = config.filter == "binary", config.filter_warmup, set()
        # Of value_of=behaviour the first γ's policy clones everything: its share kept is nobody's filter.
        self.filtered = {str(gamma) for gamma in gammas[config.value_of == "behaviour" :]}
        self.first: dict[str, list[float]] = {}  # shares of the first rows under the filter, and of the last ones
        self.last: dict[str, deque[float]] = {}

    def check(self, row: dict[str, float], step: int) -> None:
        if not self.active or step <= self.begins:
            return  # what is said once would be said of fresh critics, to whom all actions may be the same
        if not math.isfinite(row.get("loss/total", 0.0)):
            return  # no advantage of a step that is skipped is above 0, nor does that tell of the critics
        for name, share in row.items():
            kept, _, gamma = name.partition("@")
            if kept != "filter/share_kept" or gamma not in self.filtered:
                continue
            if not 0.02 <= share <= 0.98 and self._is_new(name):
                log.warning("step %d: %s is %.1f%%, outside 2–98%%: the filter does not tell actions apart", step, name,
                            100 * share)  # fmt: skip
            fell = self._halved(name, share) and row[f"value/policy_minus_data@{gamma}"] > 0
            if fell and self._is_new(f"{name} fell"):
                log.warning(
                    "step %d: %s fell from %.0f%% to %.0f%%: the policy climbs what its critics overrate; give "
                    "objective.filter_floor (0.2), or critics more battles",
                    step, name, 100 * fmean(self.first[name]), 100 * fmean(self.last[name]),
                )  # fmt: skip

    def _halved(self, name: str, share: float) -> bool:
        first, last = self.first.setdefault(name, []), self.last.setdefault(name, deque(maxlen=COMPARED_ROWS))
        (first if len(first) < COMPARED_ROWS else last).append(share)
        return len(last) == COMPARED_ROWS and fmean(last) < fmean(first) / 2

    def _is_new(self, what: str) -> bool:
        new = what not in self.said
        self.said.add(what)
        return new


class Progress:
    """Loss, speed, padding, time left and money spent: one steady bar on a terminal, which log lines pass above; plain
    lines otherwise."""

    def __init__(self, total: int, start: int, gamma: float, enabled: bool):
        self.bar = tqdm(total=total, initial=start, disable=None if enabled else True, unit="step", dynamic_ncols=True)
        self.plain = enabled and self.bar.disable
        disable_progress_bar()  # transformers' own, at each checkpoint
        self.redirect = logging_redirect_tqdm() if enabled and not self.plain else contextlib.nullcontext()
        self.redirect.__enter__()
        self.total, self.gamma, self.started = total, gamma, time.monotonic()
        self.at, self.done = start, 0  # steps done here: after the guard went back, more than the step says

    def update(self, step: int, row: dict[str, float] | None) -> None:
        """Step `step` (from 1) is done; `row` is given on logging steps."""
        self.done += step != self.at
        self.at = step
        self.bar.update(step - self.bar.n)
        if row is None:
            return
        nll = row.get(f"policy/nll@{self.gamma}")
        text = {
            "loss": f"{row['loss/total']:.3f}",
            f"nll@{self.gamma}": "–" if nll is None else f"{nll:.3f}",
            "battles/s": f"{row['speed/battles_per_s']:.1f}",
            "turns/s": f"{row['speed/turns_per_s']:.0f}",
            "padding": f"{100 * row['data/padding']:.1f}%",
        }
        if "cost/dollars" in row:
            text["spent"] = f"${row['cost/dollars']:.2f}"
        self.bar.set_postfix(text)
        if self.plain:
            left = (time.monotonic() - self.started) / self.done * (self.total - step)
            parts = " ".join(f"{name} {value}" for name, value in text.items())
            log.info("step %d/%d %s, %s left", step, self.total, parts, duration(left))

    def close(self) -> None:
        self.bar.close()
        self.redirect.__exit__(None, None, None)


class Profiler:
    """torch's profiler over `steps` optimizer steps, after one to warm up; 0: none. Writes FOLDER/trace.json for
    chrome://tracing or Perfetto, and FOLDER/table.txt by operator."""

    def __init__(self, steps: int, folder: Path):
        self.steps, self.folder, self.profiler = steps, folder, None

    def step_begins(self, index: int) -> None:
        """To be called before step `index` of this process, from 0."""
        if self.steps and index == 1:
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        elif index == 1 + self.steps:
            self.close()

    def close(self) -> None:
        """Write the steps profiled so far; to be called at the run's end too, which may come before `steps` do."""
        if self.profiler is None:
            return
        self.profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profiler.export_chrome_trace(str(self.folder / "trace.json"))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        (self.folder / "table.txt").write_text(self.profiler.key_averages().table(sort_by=key, row_limit=40))
        self.profiler = None
