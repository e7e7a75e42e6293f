"""By what software something was made: the packages' versions and this checkout's commit."""

import os
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
_DIFF = ("diff", "--no-ext-diff", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
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


def code_changes() -> str:
    """What a commit with a + differs from its commit by, as `git apply` takes it: the files of the rooms that were
    edited, and their new Python files. Empty where that is nothing, or there is no git."""
    if not (git_commit() or "").endswith("+"):
        return ""
    git = ["git", "-C", str(ROOT)]
    found = [subprocess.run([*git, *_DIFF, "HEAD", "--", *ROOMS], capture_output=True).stdout]
    others = [*git, "ls-files", "-z", "--others", "--exclude-standard", "--", *(f"{room}/*.py" for room in ROOMS)]
    for name in subprocess.run(others, capture_output=True, text=True).stdout.split("\0")[:-1]:
        found.append(subprocess.run([*git, *_DIFF, "--no-index", os.devnull, name], capture_output=True).stdout)
    return b"".join(found).decode(errors="replace")
