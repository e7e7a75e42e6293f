"""Train: `python -m trainer.train --config launch/runs/quickstart.yaml [--data_path DIR] [a.b=c …]`.

The same under `accelerate launch -m trainer.train`, `torchrun -m trainer.train` and `deepspeed --module trainer.train`.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from data.imports import all_at_once
from data.terminal import first_line, steady_output
from trainer.stop import StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 refused with a reason, 75 told to stop and saved (start again to go on)."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m trainer.train", description=first_line(__doc__))
    parser.add_argument("--config", help="YAML of the run (launch/runs/*.yaml); defaults where absent")
    parser.add_argument("--data_path", help="folder of battle files: the same as data.path=DIR")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher passes it
    parser.add_argument("settings", nargs="*", metavar="a.b=c", help="settings laid over the file's")
    arguments, unknown = parser.parse_known_intermixed_args(argv)  # settings and options in any order
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}: give settings without dashes, as max_steps=30")
    log_plainly()
    with all_at_once():
        from trainer.config import load_config  # here and below: seconds of imports, which --help need not wait for

    settings = list(arguments.settings)
    if arguments.data_path:
        # As a text of YAML, which JSON's is: a path may hold what means something there.
        settings.append(f"data.path={json.dumps(arguments.data_path, ensure_ascii=False)}")
    config = None
    try:
        with StopRequest().listen() as stop:
            config = load_config(arguments.config, settings)
            from trainer.loop import Run

            return Run(config, stop).train()
    except (ValueError, RuntimeError, OSError) as error:
        if _is_ours(error):
            print(f"error: {error}", file=sys.stderr)
            return 1
        from trainer.faults import said_of

        if config and (known := said_of(error, config)):
            print(f"error: {known}", file=sys.stderr)
            return 1
        raise


def log_plainly() -> None:
    """What we have to say goes to the terminal as it is, without every request of the Hub's client."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "httpx2", "filelock", "fsspec", "urllib3", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _is_ours(error: Exception) -> bool:
    """Whether an error was raised by this project, with a message for its user; others keep their traceback."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "").split(".")[0] in ("data", "model", "trainer")


if __name__ == "__main__":
    sys.exit(main())
