"""By what software something was made: the packages' versions and this checkout's commit."""

import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of the packages that a run's numbers hang on. DeepSpeed is left out where it is not installed, as it
    need not be for plain training."""
    found = {
        name: version(name) for name in ("torch", "accelerate", "transformers", "datasets", "numpy", "safetensors")
    }
    with suppress(PackageNotFoundError):
        found["deepspeed"] = version("deepspeed")
    return found


def git_commit() -> str | None:
    """Commit of this checkout, or None where there is no git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
