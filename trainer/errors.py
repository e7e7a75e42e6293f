"""What a person can mend before a run: light, for whoever must tell of it without PyTorch."""

from pathlib import Path
from typing import NoReturn


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and the mend."""


def refuse_unwritable(output: Path, fault: str | None) -> NoReturn:
    """Raises ConfigError: in OUTPUT nothing can be written, for the system's reason `fault`."""
    raise ConfigError(f"{output}: nothing can be written there ({fault}): give another output")
