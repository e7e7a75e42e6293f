"""Where the shared real battles lie, for tests that use them where they are present."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared"


def shared_folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{name} of the shared real battles is not here")
    return folder
