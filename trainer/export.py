"""A model folder that acts without this repository: weights, config, vocabulary, and flat copies of the code.

The copies are `model/`'s files as they are, `data/`'s torch-free encoding files, and the agent of `battle/agents.py`
in its three files, imports flattened (`from data.x import` → `from .x import`); a test compares them.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL_FILES = (
    "configuration_turnwise.py", "modeling_turnwise.py", "turn_encoder.py", "trunk.py", "attention.py", "heads.py",
)  # fmt: skip
DATA_FILES = (
    "schema.py", "observation.py", "replacing.py", "tokenizer.py", "reward.py", "blocks.py", "walk.py", "encode.py",
    "space_stamps.py",
)  # fmt: skip
AGENT_FILES = ("agents.py", "decision.py", "saved_agent.py")
VOCABULARY = "vocabulary.json"
WEIGHTS = "model.safetensors"
CALIBRATION = "calibration.json"
CARD = "README.md"
CURVE = "training_curve.png"


def export_model(network, tokenizer, folder: Path, state_dict: dict | None = None) -> None:
    """Write a complete model folder. `state_dict` overrides the network's own (fp32 masters under DeepSpeed)."""
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder, state_dict=None if state_dict is None else dict(state_dict))
    if state_dict is not None:
        floating = next(value for value in state_dict.values() if value.is_floating_point())
        _say_dtype(folder / "config.json", str(floating.dtype).removeprefix("torch."))
    tokenizer.save(folder / VOCABULARY)
    shutil.copymode(folder / VOCABULARY, folder / WEIGHTS)  # safetensors writes for its owner's eyes alone
    for name, text in code_copies().items():
        (folder / name).write_text(text, encoding="utf-8")


def _say_dtype(file: Path, dtype: str) -> None:
    """By which the weights are loaded: transformers notes that of the network at hand, under DeepSpeed bf16."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["dtype"] = dtype
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def take_out(source: Path, target: Path, documents: Mapping[str, bytes]) -> None:
    """Copy a model folder, with what it lacks of the code that it acts by without this repository, and `documents`
    (file name → content) beside it. An agent that lies there gives way; raises FileExistsError where anything else
    does."""
    target = target.resolve()
    refuse_others_files(source, target)
    copy_model(source, target)
    for name, text in code_copies().items():
        if not (target / name).exists():
            (target / name).write_text(text, encoding="utf-8")
    for name, content in documents.items():
        (target / name).write_bytes(content)


def refuse_others_files(source: Path, target: Path) -> None:
    """Raises FileExistsError where an agent may not be written: over a file, or where anything but an agent lies."""
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target}: is a file: give a folder")
    ours = {path.name for path in source.iterdir()} | code_copies().keys() | {CARD, CURVE, CALIBRATION}
    if others := sorted({path.name for path in target.iterdir()} - ours if target.exists() else ()):
        raise FileExistsError(f"{target}: holds {others[0]}, which no agent does: give a new or an empty folder")


def code_copies() -> dict[str, str]:
    """File name → text of every code file that travels with a model."""
    copies = {name: (ROOT / "model" / name).read_text(encoding="utf-8") for name in MODEL_FILES}
    copies |= {name: (ROOT / "data" / name).read_text(encoding="utf-8") for name in DATA_FILES}
    agent = {name: (ROOT / "battle" / name).read_text(encoding="utf-8") for name in AGENT_FILES}
    return copies | {name: flatten_imports(text) for name, text in agent.items()}


def flatten_imports(source: str) -> str:
    """`from data.encode import X` → `from .encode import X`, for the rooms that lie flat in a model folder."""
    return re.sub(r"^(\s*)from (?:data|model|battle)\.(\w+) import", r"\1from .\2 import", source, flags=re.M)


def copy_model(source: Path, target: Path) -> None:
    """Replace `target` by a copy of a model folder, never leaving half of one under its name."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(source, temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:  # where the disk is full, half a copy would keep it so
        shutil.rmtree(temporary, ignore_errors=True)
