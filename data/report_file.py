"""Where a command writes what it has to give when hours of work may be done."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def report_file(text: str) -> Path:
    """A file on the command line that is written after the last battle, looked at before the first. Makes its
    folder."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
    except OSError:
        writable = False
    if path.is_dir() or not writable:
        raise argparse.ArgumentTypeError(f"{text!r}: cannot be written: give another file")
    return path


def writable_folder(text: str) -> Path:
    """A folder on the command line that the first file comes into later, made and looked at before the work begins."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise argparse.ArgumentTypeError(f"{text!r}: cannot be written: give another folder")
    return path
