"""The Makefile's own words: a machine whose Python is too old."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_old_python_is_refused_before_it_leaves_an_environment(tmp_path):
    python = tmp_path / "python"
    old = "import sys; sys.version_info = (3, 10, 12); "
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exit 0\nexec {sys.executable} -c "{old}$2"\n')
    python.chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Python 3.10 is too old: install Python 3.11" in done.stderr
    assert not (tmp_path / "venv").exists()
