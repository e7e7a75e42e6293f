"""Where a command writes what it has to give when hours of work may be done, and that it never costs what it found."""

from __future__ import annotations

import argparse
import os
import sys
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


def write_report(path: Path, text: str) -> bool:
    """Write what was found to a file of `report_file`. Where that fails, as on a disk that is full by now, it is said,
    and the command goes on to show what it found otherwise, and ends with status 1."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"error: {path}: {error.strerror}: free some space or choose another file", file=sys.stderr)
        return False
    return True


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
