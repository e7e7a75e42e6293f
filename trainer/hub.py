"""Agents to and from the Hugging Face Hub, each with its card, and small ones to be kept beside the code.

python -m trainer.hub push RUN_OR_FOLDER --to NAME/MODEL [--private]
python -m trainer.hub pull NAME/MODEL --to DIR
python -m trainer.hub pack RUN_OR_FOLDER --to DIR    # weights in bf16, without the code: for keeping beside it
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from data.hub_errors import HUB_ERRORS, said_of
from data.imports import all_at_once
from data.report_file import writable_folder
from data.terminal import steady_output
from trainer.export import CALIBRATION, CURVE


def pull(name: str, to: Path) -> str:
    """Download a model; what tells of an agent that was there before, and has no successor, goes."""
    there = snapshot_download(name, local_dir=to)
    for stale in {CALIBRATION, CURVE}.difference(HfApi().list_repo_files(name)):
        (to / stale).unlink(missing_ok=True)
    return there


def main(argv: Sequence[str] | None = None) -> int:
    """Push a saved agent to the Hugging Face Hub, pull one, or pack one up small."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m trainer.hub", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    pushing = verbs.add_parser("push", help="upload an agent with its card and the code that it acts by")
    pushing.add_argument("checkpoint", help="a run's folder, a checkpoint, or a saved model")
    pushing.add_argument("--to", required=True, help="NAME/MODEL")
    pushing.add_argument("--private", action="store_true")
    pushing.add_argument(
        "--licence", help="as the Hub names it (default: cc-by-nc-4.0 where the data asks for it, else mit)"
    )
    pulling = verbs.add_parser("pull", help="download one")
    pulling.add_argument("name", help="NAME/MODEL")
    pulling.add_argument("--to", required=True, type=writable_folder)
    packing = verbs.add_parser("pack", help="weights in bf16 and a card, without the code: to be kept beside it")
    packing.add_argument("checkpoint", help="a run's folder, a checkpoint, or a saved model")
    packing.add_argument("--to", required=True, type=Path)
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb == "pull":
            print(pull(arguments.name, arguments.to))
            return 0
        with all_at_once():
            from trainer.card import run_of  # here: seconds of imports, which --help and `pull` need not wait for
        from trainer.checkpoint import model_folder
        from trainer.upload import pack, push

        folder = model_folder(arguments.checkpoint)
        if arguments.verb == "pack":
            pack(folder, arguments.to, run_of(folder))
            print(arguments.to)
        else:
            print(push(folder, arguments.to, arguments.licence, arguments.private, run_of(folder)))
    except HUB_ERRORS as error:
        print(f"error: {said_of(error, arguments.name if arguments.verb == 'pull' else arguments.to)}", file=sys.stderr)
        return 1
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
