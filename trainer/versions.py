"""By what software something was made: the packages' versions and this checkout's commit."""

import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("model", "trainer", "data", "battle")


def versions() -> dict[str, str]:
    """Versions of the packages that a run's numbers hang on. DeepSpeed is left out where it is not installed, as it
    need not be for plain training."""
    found = {
        name: version(name) for name in ("torch", "accelerate", "transformers", "datasets", "numpy", "safetensors")
    }
    with suppress(PackageNotFoundError):
        found["deepspeed"] = version("deepspeed")
    return found


def git_commit(short: bool = False) -> str | None:
    """Commit of this checkout, its hash whole or `short`, with a + where files of the rooms differ from it: another
    objective is tried by changing one. None where there is no git."""
    git, form = ["git", "-C", str(ROOT)], ["--short"] if short else []
    try:
        head = subprocess.run([*git, "rev-parse", *form, "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    if head.returncode:
        return None
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *ROOMS]).returncode
    return head.stdout.strip() + ("+" if changed else "")
