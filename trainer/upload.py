"""What goes up to the Hugging Face Hub, or into a folder: a model with its card, its curve and the code it acts by."""

import shutil
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from safetensors.torch import load_file, save_file

from model.configuration_turnwise import TurnwiseConfig
from trainer.card import SAME_TERMS, USE, USE_PACKED, RunFacts, model_card, renamed_card
from trainer.errors import card_reads, come_whole
from trainer.export import CALIBRATION, CARD, CURVE, VOCABULARY, WEIGHTS, code_copies, refuse_others_files
from trainer.provenance import NON_COMMERCIAL


def pack(folder: Path, target: Path, run: Path | None) -> None:
    """Write a model to `target` with bf16 weights, its card, and without copies of the code, which `push` adds again.

    run: as in `push`. Every weight is rounded to bf16's 8 bits of precision; PopArt's statistics are not, whose
    differences are the scale of all values. An agent that lies there gives way. Raises OSError, FileExistsError where
    anything else does, CheckpointError where the model did not come whole.
    """
    # First: where these fail, nothing is half written.
    with come_whole(folder):
        weights = load_file(folder / WEIGHTS)
    found = documents(folder, title_of(target), None, run, USE_PACKED)
    refuse_others_files(folder, target)
    target.mkdir(parents=True, exist_ok=True)
    weights = {name: value if name.startswith("popart.") else value.bfloat16() for name, value in weights.items()}
    save_file(weights, target / WEIGHTS, metadata={"format": "pt"})
    copied = [name for name in ("config.json", VOCABULARY, CALIBRATION) if (folder / name).exists()]
    for name in copied:
        shutil.copy2(folder / name, target / name)
    shutil.copymode(target / "config.json", target / WEIGHTS)
    for name, content in found.items():
        (target / name).write_bytes(content)
    for path in target.iterdir():  # another agent's win chances and curve are none of this one's
        if path.name not in {WEIGHTS, *copied, *found}:
            path.unlink()


def title_of(target: Path) -> str:
    """What a card calls a folder: how a machine's folders lie is nobody's business."""
    return target.name if target.is_absolute() else str(target)


def documents(folder: Path, repo: str, licence: str | None, run: Path | None, use: str = USE) -> dict[str, bytes]:
    """File name → content of a model's card and the figure in it; arguments as in `push` and `model_card`."""
    from trainer.figures import training_curve  # here: a drawing library, which no training run need wait for

    if run is None and (folder / CARD).exists():  # it knows more than can be found out now
        with card_reads(folder / CARD):
            card = renamed_card((folder / CARD).read_text(encoding="utf-8"), repo, use)
        if licence:
            card.data.license = licence
            if licence != NON_COMMERCIAL:
                card.text = card.text.replace(f"\n\n{SAME_TERMS}", "")
        return {CARD: str(card).encode()} | {p.name: p.read_bytes() for p in folder.glob(CURVE)}
    facts = RunFacts.of(run, folder)
    found = {CARD: str(model_card(folder, repo, licence, facts, use)).encode()}
    gamma = TurnwiseConfig.from_pretrained(folder).act_gamma
    return found | ({CURVE: training_curve(facts.rows, gamma)} if facts.rows else {})


def push(
    folder: Path, repo: str, licence: str | None, private: bool, run: Path | None, message: str = "A trained agent"
) -> str:
    """Upload a model folder with its card, in one commit, and return the commit's address. Hidden files stay behind, as
    those that `pull` leaves; what tells of an earlier agent, and has no successor here, leaves the repository.

    run: the folder of the run that the card tells of, or None. Raises what `data.hub_errors.HUB_ERRORS` names.
    """
    api = HfApi()
    repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    contents: dict[str, bytes | Path] = {
        name.as_posix(): path for name, path in files.items() if not any(part.startswith(".") for part in name.parts)
    }
    code = {name: text.encode() for name, text in code_copies().items()}
    contents = code | contents | documents(folder, repo, licence, run)
    # Win chances and the curve are of one agent: beside other weights they would be untrue.
    stale = {CALIBRATION, CURVE}.difference(contents).intersection(api.list_repo_files(repo))
    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    operations += [CommitOperationDelete(name) for name in sorted(stale)]
    return str(api.create_commit(repo, operations, commit_message=message).commit_url)
