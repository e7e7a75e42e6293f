"""Held-out evaluation by command: how well a checkpoint predicts what people chose, and how battles end.

    python -m trainer.evaluate --checkpoint DIR --data DIR

`trainer.scores` says what is counted.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from data.encode import ILLEGAL_RULES
from data.imports import all_at_once
from data.report_file import report_file, write_report
from data.terminal import say, steady_output
from trainer.train import log_plainly


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a checkpoint on the held-out battles of a folder, and print a table."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description=main.__doc__)
    parser.add_argument(
        "--checkpoint", required=True, help="a run's folder, a checkpoint, a saved model, or a name on the Hub"
    )
    parser.add_argument("--data", required=True, help="folder of battle files, a token cache, or archives")
    parser.add_argument("--gamma", type=float, help="whose policy is judged (default: the model's)")
    parser.add_argument("--battles", type=int, help="at most so many held-out battles")
    parser.add_argument("--formats", nargs="+", default=(), help="these formats alone")
    parser.add_argument("--filter", default="", help="battles for which an expression holds, as data.filter")
    parser.add_argument("--clone", default="", help="battles whose actions the policy is judged by, as data.clone")
    parser.add_argument(
        "--illegal-actions", choices=ILLEGAL_RULES, default="reject", help="as data.illegal_actions of the training"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="all the battles there, of which the model was trained on none, not its share",
    )
    parser.add_argument("--against", help="another model, held against it decision by decision")
    parser.add_argument("--out", type=report_file, help="file to write all of it to, as JSON")
    arguments = parser.parse_args(argv)
    log_plainly()
    with all_at_once():
        from trainer.heldout import evaluate_folder  # here: seconds of imports, which --help need not wait for
    from trainer.paired import as_text as paired_text
    from trainer.scores import as_text

    try:
        result = evaluate_folder(
            arguments.checkpoint, arguments.data, arguments.gamma, arguments.battles, arguments.formats,
            arguments.filter, arguments.illegal_actions, arguments.all, arguments.against, arguments.clone,
        )  # fmt: skip
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Before a word is said, which a full disk could refuse.
    written = not arguments.out or write_report(arguments.out, json.dumps(result, indent=1))
    say("\n\n".join([as_text(result), *([paired_text(result["against"])] if arguments.against else [])]))
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
