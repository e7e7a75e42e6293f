"""A saved model folder, or a model of the Hugging Face Hub, read: network, vocabulary and calibration."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from data.reward import reward_stamp
from data.schema import SCHEMA_VERSION
from data.space_stamps import space_stamps
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}


def load(folder_or_name: str | Path, device: str, dtype: str) -> tuple[TurnwiseForOfflineRL, Tokenizer, dict | None]:
    """The network on its device, its vocabulary, and the calibration of its win chance, None if never fitted.

    dtype: of the weights, a key of DTYPES. Raises FileNotFoundError where there is no such model, ValueError where a
    file is cut or the device is not here.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: give one of {', '.join(DTYPES)}")
    folder = model_folder(folder_or_name)
    tokenizer = Tokenizer.load(folder / "vocabulary.json")
    fitted = folder / "calibration.json"
    try:
        with _no_bars():
            network = TurnwiseForOfflineRL.from_pretrained(folder, dtype=DTYPES[dtype])
        calibration = json.loads(fitted.read_text()) if fitted.exists() else None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: is cut or spoilt ({error}): save or fetch the model again") from error
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:  # of a torch without CUDA, an AssertionError
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder_or_name}: device={device}: {reason}: give cpu, or a device that is here") from error
    return network, tokenizer, calibration


def model_folder(folder_or_name: str | Path) -> Path:
    """The folder to load from; of a run that still trains, or was stopped, its newest finished checkpoint's.

    Raises FileNotFoundError where a folder holds no model, or there is none of that name on the Hub either."""
    path = Path(folder_or_name)
    newest = sorted(path.glob("step_*/manifest.json"))[-1:]
    for candidate in (path, path / "model", *(manifest.parent / "model" for manifest in newest)):
        if (candidate / "config.json").exists():
            return candidate
    if path.exists():
        raise FileNotFoundError(f"{path}: holds no config.json: give a saved model's folder, or a run's")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    client_fault = HfHubHTTPError.__bases__[0]  # of the HTTP client: an HF_ENDPOINT without https://, for one
    try:
        return Path(snapshot_download(str(folder_or_name)))
    except HFValidationError as error:  # a path of more than two parts is no name there, and was not meant as one
        raise FileNotFoundError(f"{path}: no such folder: give a saved model's, a run's, or NAME/MODEL") from error
    except (OSError, ValueError, client_fault, ImportError) as error:  # the last: a proxy that wants a package
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"{path}: no such folder, and the Hub does not give it ({reason}): check name and network"
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' bar for the weights, one for each player of an evaluation; a download keeps its own."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def check_stamps(config, tokenizer: Tokenizer, name: str) -> None:
    """Raises ValueError naming the stamp that differs (law 14)."""
    stamps = {"vocabulary_hash": tokenizer.hash, "schema_version": SCHEMA_VERSION}
    stamps |= space_stamps(config.observation_space) | reward_stamp(config.reward_kind)
    for stamp, ours in stamps.items():
        theirs = getattr(config, stamp)
        if ours != theirs and not (stamp.endswith("_digest") and theirs == ""):  # of a model older than the digests
            raise ValueError(
                f"{name}: {stamp} is {theirs!r} in the model's config and {ours!r} here: use the vocabulary.json and "
                "code saved with the model"
            )
