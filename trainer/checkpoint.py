"""Checkpoints that are whole or absent: written to a temporary folder, listed in a manifest, then renamed.

    OUTPUT/step_00002000/   model/ (fp32, reloads with from_pretrained), optimizer.safetensors, targets.safetensors,
                            run.json (step, configuration, which checkpoint is the best so far), manifest.json;
                            where weights are averaged, model/ is the average and online.safetensors what is trained
    OUTPUT/model/           the agent that the run leaves behind

The position in the data is the step alone (law 4), and every generator is seeded from the step, so neither has a state
to save. What is saved is the same for every engine and number of processes (`trainer/state.py`).

    python -m trainer.checkpoint inspect|verify|export RUN_OR_CHECKPOINT
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data.hub_errors import HUB_ERRORS, said_of
from data.terminal import steady_output
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL
from trainer.errors import CheckpointError, come_whole
from trainer.export import export_model, take_out
from trainer.optim import parameter_groups
from trainer.state import TrainingState
from trainer.versions import versions

log = logging.getLogger(__name__)
PREFIX = "step_"
SCHEMA = 3  # 3: there may be an online.safetensors


def step_folder(output: Path, step: int) -> Path:
    return output / f"{PREFIX}{step:08d}"


def list_checkpoints(output: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(p for p in output.glob(f"{PREFIX}*") if p.is_dir() and (p / "manifest.json").exists())


def recover(output: Path) -> None:
    """Tidy up after a `write` that was killed: what it had not finished goes, what it was about to replace returns."""
    for left in output.glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    for former in output.glob(f".{PREFIX}*.old"):
        final = output / former.name[1 : -len(".old")]
        if final.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            former.rename(final)


def newest_valid(output: Path, sound: bool = False) -> Path | None:
    """The newest checkpoint that verifies; damaged newer ones are named in the log and passed over. sound: none that
    was saved in a stretch of skipped updates."""
    for folder in reversed(list_checkpoints(output)):
        try:
            verify(folder)
            if not (sound and json.loads((folder / "run.json").read_text()).get("skipping")):
                return folder
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
    return None


def write(output: Path, step: int, state: TrainingState, record: dict[str, Any], network, tokenizer) -> Path:
    """Write the checkpoint of `step` and return its folder; one process calls it.

    record: JSON: configuration, the best result so far (this one's included), …. network: gives the model's
    configuration. Raises OSError or SafetensorError (disk full, read-only); then nothing lies under its name.
    """
    final = step_folder(output, step)
    temporary, former = output / f".{final.name}.tmp", output / f".{final.name}.old"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        export_model(network, tokenizer, temporary / "model", state_dict=state.average or state.network)
        if state.average:
            save_file(state.network, temporary / "online.safetensors")
        save_file(state.targets, temporary / "targets.safetensors")
        save_file(state.moments, temporary / "optimizer.safetensors", metadata={"updates": str(state.updates)})
        run = {"schema": SCHEMA, "step": step, "versions": versions(), **record}
        (temporary / "run.json").write_text(json.dumps(run, indent=1))
        _write_manifest(temporary)
        if final.exists():
            os.replace(final, former)
        os.replace(temporary, final)
        _sync_folder(output)
        shutil.rmtree(former, ignore_errors=True)
    except BaseException:
        recover(output)
        raise
    return final


def read(folder: Path) -> tuple[TrainingState, dict]:
    """A verified checkpoint's state and its `run.json`. Raises CheckpointError."""
    verify(folder)
    run = json.loads((folder / "run.json").read_text())
    if run["schema"] > SCHEMA:
        raise CheckpointError(f"{folder}: written by a later version (schema {run['schema']}): update Turnwise")
    network, targets = load_file(folder / "model" / "model.safetensors"), load_file(folder / "targets.safetensors")
    if run["schema"] == 1:
        return TrainingState(network, *_moments_of_schema_1(folder, targets)), run
    average = {}
    if (folder / "online.safetensors").exists():
        network, average = load_file(folder / "online.safetensors"), network
    with safe_open(folder / "optimizer.safetensors", framework="pt") as handle:
        updates = int(handle.metadata()["updates"])
    return TrainingState(network, load_file(folder / "optimizer.safetensors"), targets, updates, average), run


def _moments_of_schema_1(folder: Path, targets: dict) -> tuple[dict, dict, int]:
    """(moments, targets, updates) from the `optimizer.pt` of an earlier version, whose moments are numbered in the
    order of the optimizer's groups."""
    if (folder / "deepspeed").exists():
        raise CheckpointError(
            f"{folder}: saved by an earlier version under DeepSpeed, in shards that fit that launch alone: start a new "
            f"run from its model, model.init_from={folder / 'model'}"
        )
    saved = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")["state"]
    network = load_network(folder / "model")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    order = [names[id(parameter)] for group in parameter_groups(network, 0.0) for parameter in group["params"]]
    moments = {
        f"{kind}/{order[place]}": value
        for place, state in saved.items()
        for kind, value in state.items()
        if kind != "step"
    }
    return moments, targets, max((int(state["step"]) for state in saved.values()), default=0)


class FileEntry(msgspec.Struct):
    """A file of a checkpoint as it was written: its size in bytes, its hash in hex."""

    size: int
    sha256: str


class Manifest(msgspec.Struct):
    """`manifest.json`: every other file of a checkpoint, by its path within."""

    schema: int
    files: dict[str, FileEntry]


def verify(folder: Path) -> Manifest:
    """Check every file against the manifest and return it. Raises CheckpointError naming the file."""
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, ValueError) as error:  # no JSON, no UTF-8, a field that is missing or of another kind
        raise CheckpointError(f"{folder}/manifest.json: {error}: this is no finished checkpoint") from error
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.exists() or path.stat().st_size != expected.size or _sha256(path) != expected.sha256:
            raise CheckpointError(f"{path}: missing or damaged (differs from manifest.json): use an earlier checkpoint")
    return manifest


def prune(output: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best one."""
    for folder in list_checkpoints(output)[:-keep] if keep else []:
        if best_step is None or folder != step_folder(output, best_step):
            shutil.rmtree(folder)


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


def find_model(name: str | Path) -> Path:
    """`model_folder`, or where there is no such path a model of the Hub, fetched. Raises CheckpointError."""
    if Path(name).exists():
        return model_folder(name)
    try:
        return Path(snapshot_download(str(name)))
    except HUB_ERRORS as error:
        # A path of more than two parts is no name there, and was not meant as one.
        why = "" if isinstance(error, HFValidationError) else f" ({said_of(error, 'as a name')})"
        raise CheckpointError(
            f"{str(name)!r}: no such folder{why}: name a run, a checkpoint, a saved model, or NAME/MODEL of the Hub"
        ) from error


def load_network(folder: Path) -> TurnwiseForOfflineRL:
    """The network of a saved model folder, on CPU in fp32.

    Not by `from_pretrained`: under ZeRO-3 that would share the weights out among processes that are not all here.
    Raises CheckpointError where its files did not come whole.
    """
    with come_whole(folder):
        config = TurnwiseConfig.from_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
    network = TurnwiseForOfflineRL(config)
    with come_whole(folder):
        network.load_state_dict(weights)
    return network


def _write_manifest(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    entries = {}
    for path in files:
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())
        entries[str(path.relative_to(folder))] = FileEntry(path.stat().st_size, _sha256(path))
    encoded = msgspec.json.encode(Manifest(SCHEMA, entries))
    _write_atomically(folder / "manifest.json", msgspec.json.format(encoded, indent=1).decode())


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


def describe(folder: Path) -> str:
    """A checkpoint in words: step, engine-free contents, versions. Raises CheckpointError where it is damaged."""
    manifest = verify(folder)
    run = json.loads((folder / "run.json").read_text())
    size = sum(entry.size for entry in manifest.files.values())
    parameters = sum(value.numel() for value in load_file(folder / "model" / "model.safetensors").values())
    best = run["best"]
    best = f"{best['nll']:.4f} at step {best['step']}" if isinstance(best, dict) else best or "not measured yet"
    lines = [
        f"{folder}: whole, {len(manifest.files)} files, {size / 2**20:.1f} MiB, schema {run['schema']}",
        f"step {run['step']}; {parameters:,} parameters; best held-out NLL: {best}",
        f"commit {run['commit'] or 'unknown'}; " + ", ".join(f"{name} {v}" for name, v in run["versions"].items()),
        json.dumps(run["config"]),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Look at a run's checkpoints, check them, or take the agent out of one. Exit status 1 where one is damaged."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m trainer.checkpoint", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (
        ("inspect", "what a checkpoint (or a run's newest) holds"),
        ("verify", "every file of every checkpoint against its hash"),
        ("export", "an agent (a finished run's, else its newest checkpoint's) as a folder that acts by itself"),
    ):
        command = verbs.add_parser(verb, help=words)
        command.add_argument("folder", type=Path, help="a run's folder or a checkpoint")
    command.add_argument("--to", type=Path, required=True, help="folder of the exported agent")
    arguments = parser.parse_args(argv)
    folders = (
        [arguments.folder] if (arguments.folder / "manifest.json").exists() else list_checkpoints(arguments.folder)
    )
    try:
        if arguments.verb == "export":
            from trainer.card import run_of  # here: seconds of imports for one verb of three
            from trainer.upload import documents, title_of

            source = model_folder(arguments.folder)
            if (source.parent / "manifest.json").exists():
                verify(source.parent)
            take_out(source, arguments.to, documents(source, title_of(arguments.to), None, run_of(source)))
            print(f"{source} → {arguments.to}")
            return 0
        if not folders:
            raise CheckpointError(f"{arguments.folder}: no checkpoint here: give a run's folder or one of its step_…")
        if arguments.verb == "verify":
            return _verify_all(folders)
        print(describe(folders[-1]))
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _verify_all(folders: list[Path]) -> int:
    damaged = 0
    for folder in folders:
        try:
            verify(folder)
            print(f"{folder}: whole")
        except CheckpointError as error:
            damaged += 1
            print(f"damaged: {error}")
    return int(damaged > 0)


if __name__ == "__main__":
    sys.exit(main())
