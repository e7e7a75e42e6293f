"""A model folder that acts without this repository: weights, config, vocabulary, and flat copies of the code.

    python -m trainer.hub push RUN_OR_FOLDER --to NAME/MODEL [--private]
    python -m trainer.hub pull NAME/MODEL --to DIR
    python -m trainer.hub pack RUN_OR_FOLDER --to DIR    # weights in bf16, without the code: for keeping beside it

The copies are `model/`'s files as they are, `data/`'s torch-free encoding files, and the agent of `battle/agents.py`
with its imports flattened (`from data.x import` → `from .x import`); a test compares them.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, snapshot_download
from safetensors.torch import load_file, save_file

from data.hub_errors import HUB_ERRORS, said_of
from model.configuration_turnwise import TurnwiseConfig

ROOT = Path(__file__).resolve().parent.parent
MODEL_FILES = (
    "configuration_turnwise.py", "modeling_turnwise.py", "turn_encoder.py", "trunk.py", "attention.py", "heads.py",
)  # fmt: skip
DATA_FILES = ("schema.py", "observation.py", "tokenizer.py", "reward.py", "encode.py")
AGENT_FILE = "agents.py"
VOCABULARY = "vocabulary.json"
WEIGHTS = "model.safetensors"
CALIBRATION = "calibration.json"
CARD = "README.md"


def export_model(network, tokenizer, folder: Path, state_dict: dict | None = None) -> None:
    """Write a complete model folder. `state_dict` overrides the network's own (fp32 masters under DeepSpeed)."""
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder, state_dict=None if state_dict is None else dict(state_dict))
    tokenizer.save(folder / VOCABULARY)
    shutil.copymode(folder / VOCABULARY, folder / WEIGHTS)  # safetensors writes for its owner's eyes alone
    for name, text in code_copies().items():
        (folder / name).write_text(text, encoding="utf-8")


def take_out(source: Path, target: Path) -> None:
    """Copy a model folder, with what it lacks of the code that it acts by without this repository. An agent that lies
    there gives way; raises FileExistsError where anything else does."""
    from trainer.card import CURVE  # here: the trainer's checkpoints need none

    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target}: is a file: give a folder")
    ours = {path.name for path in source.iterdir()} | code_copies().keys() | {CARD, CURVE, CALIBRATION}
    if others := sorted({path.name for path in target.iterdir()} - ours if target.exists() else ()):
        raise FileExistsError(f"{target}: holds {others[0]}, which no agent does: give a new or an empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_model(source, target)
    for name, text in code_copies().items():
        if not (target / name).exists():
            (target / name).write_text(text, encoding="utf-8")


def code_copies() -> dict[str, str]:
    """File name → text of every code file that travels with a model."""
    copies = {name: (ROOT / "model" / name).read_text(encoding="utf-8") for name in MODEL_FILES}
    copies |= {name: (ROOT / "data" / name).read_text(encoding="utf-8") for name in DATA_FILES}
    copies[AGENT_FILE] = flatten_imports((ROOT / "battle" / AGENT_FILE).read_text(encoding="utf-8"))
    return copies


def flatten_imports(source: str) -> str:
    """`from data.encode import X` → `from .encode import X`, for the rooms that lie flat in a model folder."""
    return re.sub(r"^(\s*)from (?:data|model|battle)\.(\w+) import", r"\1from .\2 import", source, flags=re.M)


def copy_model(source: Path, target: Path) -> None:
    """Replace `target` by a copy of a model folder, never leaving half of one under its name."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def pack(folder: Path, target: Path, run: Path | None) -> None:
    """Write a model to `target` with bf16 weights, its card, and without copies of the code, which `push` adds again.

    run: as in `push`. Every weight is rounded to bf16's 8 bits of precision; PopArt's statistics are not, whose
    differences are the scale of all values. Raises OSError.
    """
    target.mkdir(parents=True, exist_ok=True)
    weights = load_file(folder / WEIGHTS)
    weights = {name: value if name.startswith("popart.") else value.bfloat16() for name, value in weights.items()}
    save_file(weights, target / WEIGHTS, metadata={"format": "pt"})
    for name in ("config.json", VOCABULARY, CALIBRATION):
        if (folder / name).exists():
            shutil.copy2(folder / name, target / name)
    shutil.copymode(target / "config.json", target / WEIGHTS)
    for name, content in documents(folder, str(target), None, run, packed=True).items():
        (target / name).write_bytes(content)


def documents(folder: Path, repo: str, licence: str | None, run: Path | None, packed: bool = False) -> dict[str, bytes]:
    """File name → content of a model's card and the figure in it; arguments as in `push`. packed: without its code."""
    from trainer import card  # here: the trainer's checkpoints need none
    from trainer.figures import training_curve

    facts = card.RunFacts.of(run, folder)
    text = card.model_card(folder, repo, licence, facts, card.USE_PACKED if packed else card.USE)
    found = {CARD: str(text).encode()}
    gamma = TurnwiseConfig.from_pretrained(folder).act_gamma
    return found | ({card.CURVE: training_curve(facts.rows, gamma)} if facts.rows else {})


def push(
    folder: Path, repo: str, licence: str | None, private: bool, run: Path | None, message: str = "A trained agent"
) -> str:
    """Upload a model folder with its card, in one commit, and return the commit's address. Hidden files stay behind, as
    those that `pull` leaves; what tells of an earlier agent, and has no successor here, leaves the repository.

    run: the folder of the run that the card tells of, or None. Raises what `data.hub_errors.HUB_ERRORS` names.
    """
    from trainer.card import CURVE, beside_its_code  # here: the trainer's checkpoints need none

    api = HfApi()
    repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    contents: dict[str, bytes | Path] = {
        name.as_posix(): path for name, path in files.items() if not any(part.startswith(".") for part in name.parts)
    }
    code = {name: text.encode() for name, text in code_copies().items()}
    packed = run is None and (folder / CARD).exists()  # its card knows more than can be found out now
    contents = code | contents | ({} if packed else documents(folder, repo, licence, run))
    if packed:
        text = beside_its_code((folder / CARD).read_text(encoding="utf-8"), repo)
        if licence:
            card = ModelCard(text)
            card.data.license = licence
            text = str(card)
        contents[CARD] = text.encode()
    # Win chances and the curve are of one agent: beside other weights they would be untrue.
    stale = {CALIBRATION, CURVE}.difference(contents).intersection(api.list_repo_files(repo))
    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    operations += [CommitOperationDelete(name) for name in sorted(stale)]
    return str(api.create_commit(repo, operations, commit_message=message).commit_url)


def main(argv: Sequence[str] | None = None) -> int:
    """Push a saved agent to the Hugging Face Hub, pull one, or pack one up small."""
    parser = argparse.ArgumentParser(prog="python -m trainer.hub", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    pushing = verbs.add_parser("push")
    pushing.add_argument("checkpoint", help="a run's folder, a checkpoint, or a saved model")
    pushing.add_argument("--to", required=True, help="NAME/MODEL")
    pushing.add_argument("--private", action="store_true")
    pushing.add_argument(
        "--licence", help="as the Hub names it (default: cc-by-nc-4.0 where the data asks for it, else mit)"
    )
    pulling = verbs.add_parser("pull")
    pulling.add_argument("name", help="NAME/MODEL")
    pulling.add_argument("--to", required=True, type=Path)
    packing = verbs.add_parser("pack")
    packing.add_argument("checkpoint", help="a run's folder, a checkpoint, or a saved model")
    packing.add_argument("--to", required=True, type=Path)
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb in ("push", "pack"):
            from trainer.card import run_of
            from trainer.checkpoint import model_folder

            folder = model_folder(arguments.checkpoint)
        if arguments.verb == "pack":
            pack(folder, arguments.to, run_of(folder))
            print(arguments.to)
        elif arguments.verb == "push":
            print(push(folder, arguments.to, arguments.licence, arguments.private, run_of(folder)))
        else:
            print(snapshot_download(arguments.name, local_dir=arguments.to))
    except HUB_ERRORS as error:
        print(f"error: {said_of(error, arguments.name if arguments.verb == 'pull' else arguments.to)}", file=sys.stderr)
        return 1
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
