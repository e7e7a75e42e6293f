"""What a person can mend before a run: light, for whoever must tell of it without PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import yaml
from safetensors import SafetensorError


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and the mend."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the folder, what is wrong and the mend."""


@contextmanager
def come_whole(folder: Path) -> Iterator[None]:
    """Around the reading of a saved model's files: CheckpointError where one is cut, gone, or lacks weights."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch lists the weights that are lacking line by line
        raise CheckpointError(f"{folder}: is cut or spoilt ({reason}): save or fetch the model again") from error


@contextmanager
def card_reads(card: Path) -> Iterator[None]:
    """Around the reading of a model's card: CheckpointError where its metadata is no YAML."""
    try:
        yield
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{card}: its metadata cannot be read ({reason}): mend or delete the file") from error


def refuse_unwritable(output: Path, fault: str | None) -> NoReturn:
    """Raises ConfigError: in OUTPUT nothing can be written, for the system's reason `fault`."""
    raise ConfigError(f"{output}: nothing can be written there ({fault}): give another output")
