"""Checkpoints that are whole or absent: written to a temporary folder, listed in a manifest, then renamed.

    OUTPUT/step_00002000/   model/ (reloads with from_pretrained), optimizer.pt, targets.safetensors, run.json,
                            manifest.json
    OUTPUT/best.json        which of them has the best held-out likelihood
    OUTPUT/model/           the agent that the run leaves behind

The position in the data is the step alone (law 4), and every generator is seeded from the step, so neither has a state
to save.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL
from trainer.hub import export_model
from trainer.masters import fp32_state_dict
from trainer.objective import OfflineRL

log = logging.getLogger(__name__)
PREFIX = "step_"
SCHEMA = 1


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the folder, what is wrong and the mend."""


def step_folder(output: Path, step: int) -> Path:
    return output / f"{PREFIX}{step:08d}"


def list_checkpoints(output: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(p for p in output.glob(f"{PREFIX}*") if p.is_dir() and (p / "manifest.json").exists())


def newest_valid(output: Path) -> Path | None:
    """The newest checkpoint that verifies; damaged newer ones are named in the log and passed over."""
    for folder in reversed(list_checkpoints(output)):
        try:
            verify(folder)
            return folder
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
    return None


def save(
    output: Path, step: int, accelerator, module, objective: OfflineRL, optimizer, record: dict, tokenizer
) -> Path:
    """Write the checkpoint of `step`. Every process calls it. `record` is JSON: configuration, best result, ….

    Raises OSError (disk full, read-only) with nothing left behind under the checkpoint's name.
    """
    final = step_folder(output, step)
    temporary = output / f".{final.name}.tmp"
    state = fp32_state_dict(objective.network)
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    if accelerator.distributed_type == "DEEPSPEED":
        module.save_checkpoint(str(temporary / "deepspeed"), tag="state")
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        export_model(objective.network, tokenizer, temporary / "model", state_dict=state)
        save_file(_contiguous(objective.targets.state_dict()), temporary / "targets.safetensors")
        if accelerator.distributed_type != "DEEPSPEED":
            torch.save(optimizer.state_dict(), temporary / "optimizer.pt")
        run = {"schema": SCHEMA, "step": step, "versions": versions(), "commit": git_commit(), **record}
        (temporary / "run.json").write_text(json.dumps(run, indent=1))
        _write_manifest(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _sync_folder(output)
    accelerator.wait_for_everyone()
    return final


def restore(folder: Path, accelerator, module, objective: OfflineRL, optimizer) -> dict:
    """Load a checkpoint into prepared parts and return its `run.json`. Raises CheckpointError."""
    verify(folder)
    run = json.loads((folder / "run.json").read_text())
    if run["schema"] > SCHEMA:
        raise CheckpointError(f"{folder}: written by a later version (schema {run['schema']}): update Turnwise")
    deepspeed = accelerator.distributed_type == "DEEPSPEED"
    if deepspeed != (folder / "deepspeed").exists():
        raise CheckpointError(
            f"{folder}: was saved {'without' if deepspeed else 'with'} DeepSpeed and cannot resume the other way: "
            "launch as it was, or start anew from its model"
        )
    if deepspeed:
        module.load_checkpoint(str(folder / "deepspeed"), tag="state")
    else:
        objective.network.load_state_dict(load_file(folder / "model" / "model.safetensors"))
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu"))
    objective.targets.load_state_dict(load_file(folder / "targets.safetensors"))
    return run


def verify(folder: Path) -> dict:
    """Check every file against the manifest and return it. Raises CheckpointError naming the file."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder}/manifest.json: {error}: this is no finished checkpoint") from error
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != expected["size"] or _sha256(path) != expected["sha256"]:
            raise CheckpointError(f"{path}: missing or damaged (differs from manifest.json): use an earlier checkpoint")
    return manifest


def prune(output: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints and the best one."""
    best = best_checkpoint(output)
    for folder in list_checkpoints(output)[:-keep] if keep else []:
        if folder != best:
            shutil.rmtree(folder)


def set_best(output: Path, folder: Path, nll: float) -> None:
    _write_atomically(output / "best.json", json.dumps({"checkpoint": folder.name, "heldout_nll": nll}))


def best_checkpoint(output: Path) -> Path | None:
    try:
        return output / json.loads((output / "best.json").read_text())["checkpoint"]
    except FileNotFoundError:
        return None


def model_folder(path: str | Path) -> Path:
    """The folder to load a model from, given a run, a checkpoint or the model itself. Raises CheckpointError."""
    path = Path(path)
    for candidate in (path, path / "model"):
        if (candidate / "config.json").exists():
            return candidate
    newest = list_checkpoints(path) if path.is_dir() else []
    if newest:
        return newest[-1] / "model"
    raise CheckpointError(f"{path}: no model here: give a run's folder, a checkpoint, or a folder with config.json")


def load_network(folder: Path) -> TurnwiseForOfflineRL:
    """The network of a saved model folder, on CPU in fp32.

    Not by `from_pretrained`: under ZeRO-3 that would share the weights out among processes that are not all here.
    """
    network = TurnwiseForOfflineRL(TurnwiseConfig.from_pretrained(folder))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network


def versions() -> dict[str, str]:
    names = ("torch", "accelerate", "deepspeed", "transformers", "datasets", "numpy", "safetensors")
    return {name: version(name) for name in names}


def git_commit() -> str | None:
    """Commit of this checkout, or None where there is no git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _write_manifest(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    entries = {}
    for path in files:
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())
        entries[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    _write_atomically(folder / "manifest.json", json.dumps({"schema": SCHEMA, "files": entries}, indent=1))


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}
