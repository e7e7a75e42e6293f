"""What a run is made of, as JSON: configuration, commit, versions, machine, data. Kept as OUTPUT/about.json."""

import os
import platform
from pathlib import Path

import torch

from data.dataset import BattleDataset, DataReport
from data.folders import download_note, read_origins
from data.parallel import cores
from trainer.config import RunConfig, to_tree
from trainer.versions import versions

NON_COMMERCIAL = "cc-by-nc-4.0"


def about(
    config: RunConfig,
    commit: str | None,
    processes: int,
    device: torch.device,
    train: BattleDataset,
    report: DataReport,
) -> dict:
    """The record of a run, JSON-able: config, commit, versions, system, data."""
    return {
        "config": to_tree(config),
        "commit": commit,
        "versions": {"python": platform.python_version(), **versions()},
        "system": system(processes, device),
        "data": manifest(train, report),
    }


def system(processes: int, device: torch.device) -> dict:
    """The machine in figures: processors, accelerator, memory. No host's or user's name."""
    found = {
        "platform": platform.system(),
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "processes": processes,
        "device": device.type,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
        found["cuda"] = torch.version.cuda
    return found


def origins(train: BattleDataset) -> list[dict[str, str]]:
    """Where the data's folders were downloaded from, as noted beside them: {"repo", "revision", "licence"} each."""
    notes = dict.fromkeys(download_note(source.root) for source in train.sources.parts)
    return [origin for note in notes if note for origin in read_origins(note)]


def licence(train: BattleDataset, started: str | None) -> str | None:
    """What the data and the model begun with, whose own licence is `started`, ask of a model: to be non-commercial
    where any of them is; None: nothing that is known."""
    known = [origin["licence"] for origin in origins(train)] + [started or ""]
    return NON_COMMERCIAL if any("-nc" in one.lower() for one in known) else None


def manifest(train: BattleDataset, report: DataReport) -> dict:
    """What was trained on: battles by format, rejected ones, and where a folder's downloads came from."""
    return {
        "battles": sum(report.files.values()),
        "formats": report.files,
        "turns": report.turns,
        "rejected": report.rejected,
        "unknown_words": report.unknown_share,
        "unrecorded_actions": report.missing_share,
        "origins": origins(train),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
