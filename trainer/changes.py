"""A checkpoint's settings beside those that a run asks for: what differs, and whether that can be gone on with."""

import json
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.errors import ConfigError
from trainer.versions import git_commit, versions
from trainer.wording import flat

# What shapes a run's numbers; the rest (evaluation, logs, engines) may change at any resume.
_SHAPING = (
    "seed", "epochs", "max_steps", "batch_scaling", "lr_scaling", "precision", "model.", "objective.", "optim.",
    "data.", "batch.", "eval.battles",
)  # fmt: skip
_APART = {
    "model.attention", "model.gradient_checkpointing", "data.workers", "data.prefetch", "data.max_bytes",
    "data.cache_dir", "data.rescan", "data.turns", "data.max_reject_share", "data.max_unknown_share",
}  # fmt: skip
# Where things lie may be another place on another machine, and how many workers read there another number.
PLACES = (
    "output",
    "data.path",
    "data.sources",
    "data.vocabulary",
    "data.cache_dir",
    "data.workers",
    "model.init_from",
)
_HARMLESS = ("epochs", "max_steps", "eval.battles")  # where nothing is left to train
_HELDOUT = (
    "data.path", "data.formats", "data.heldout_share", "data.split_by", "data.filter", "data.clone", "data.sources",
    "data.illegal_actions", "data.max_turns", "data.files", "eval.battles", "model.act_gamma", "optim.ema",
)  # fmt: skip


def changed(saved: dict, asked: dict) -> dict[str, str]:
    """{key: "before → now"} of the settings that shape a run's numbers, where both trees hold the key."""
    before, now = (flat(json.loads(json.dumps(tree))) for tree in (saved, asked))
    return {
        key: f"{before[key]} → {now[key]}"
        for key in now
        if key.startswith(_SHAPING) and key not in _APART and key in before and before[key] != now[key]
    }


def changes_since(run: dict, asked: dict, files: dict[str, int], names: list[int]) -> dict[str, str]:
    """{key: "before → now"}: what differs from the settings and battles of a checkpoint's `run`."""
    noted = run.get("data", {})
    changes = changed(run.get("asked", {}), asked) | other_files(noted.get("files"), files)
    return changes | other_names(noted.get("names"), names)


def other_files(saved: dict[str, int] | None, now: dict[str, int]) -> dict[str, str]:
    """{"data.files.FORMAT": "before → now"} where the numbers of training battles differ."""
    if saved is None:
        return {}
    counts = {name: (saved.get(name, 0), now.get(name, 0)) for name in sorted(saved.keys() | now.keys())}
    return {f"data.files.{name}": f"{was} → {is_}" for name, (was, is_) in counts.items() if was != is_}


def other_names(saved: list[int] | None, now: list[int]) -> dict[str, str]:
    """{"data.files.names": …} where the battles of either side are not those by name; their numbers may be the same."""
    return {} if saved in (None, now) else {"data.files.names": "some battles → others"}


def on_the_way(run: dict, changes: dict[str, str], commit: str | None) -> list[dict]:
    """[{"step", "settings": {key: "before → now"}}]: where a run went on by other settings. A checkpoint's `run`
    notes those before it; `changes`, and another commit, are of this start."""
    if commit and run.get("commit") not in (None, commit):
        changes = {**changes, "commit": f"{run['commit']} → {commit}"}
    return [*run.get("changes", []), *([{"step": run["step"], "settings": changes}] if changes else [])]


def refuse_a_finished_run(step: int, total: int, changes: dict[str, str], output: Path) -> None:
    """Raises ConfigError where nothing is left to train by settings that differ: the run's records would tell untruths.

    By the same settings such a start only finishes again what the first one did. A run that was killed before it left
    its model is finished too where battles have come meanwhile: its steps are trained, and of those it had.
    """
    # The table is the last that a run leaves of its end, but for its report.
    ended = (output / "evaluation.json").exists()
    harmless = {key for key in changes if key in _HARMLESS or (key.startswith("data.files.") and not ended)}
    shaping = [f"{key}: {change}" for key, change in changes.items() if key not in harmless]
    if step < total or (not shaping and step == total):
        return
    by = f", by other settings ({'; '.join(shaping)})" if shaping else ""
    raise ConfigError(
        f"output={output}: {step} steps are done of {total}{by}: give another output, resume=never, or more max_steps"
    )


def refuse_differing(asked: dict, accelerator: Accelerator) -> None:
    """Raises ConfigError, on every process, where they were started by other settings or code than the first one's: a
    file of yesterday on one machine. Each would train another network, or wait where the others do not meet.
    Collective."""
    if accelerator.num_processes == 1:
        return
    mine = json.loads(json.dumps({**asked, "commit": git_commit(), "versions": versions()}))
    first, *others = (flat(one) for one in gather_object([mine]))
    for number, other in enumerate(others, 1):
        keys = sorted(first.keys() | other.keys())
        unknown = ("commit",) if None in (first["commit"], other["commit"]) else ()  # a machine without git
        left = (*PLACES, *unknown)
        differing = [key for key in keys if not key.startswith(left) and first.get(key) != other.get(key)]
        if differing:
            told = "; ".join(f"{key}: {first.get(key)} and {other.get(key)}" for key in differing)
            raise ConfigError(
                f"process {number} was started by other settings than process 0 ({told}): give all of them the same "
                "code, file and command"
            )


def other_heldout(changes: dict[str, str]) -> bool:
    """Whether likelihoods from before and from now cannot be compared: other battles, another policy's, or averaged
    weights beside plain ones."""
    return any(key.startswith(_HELDOUT) for key in changes)
