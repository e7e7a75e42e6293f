"""What an earlier run left in a folder makes way for the one that begins there, or goes on from before its end."""

import logging
import shutil
from pathlib import Path

from trainer.checkpoint import PREFIX
from trainer.guard import LOG
from trainer.tracking import RUN_ID
from trainer.wording import ABOUT, CODE

log = logging.getLogger(__name__)
PLACE = "before_"
# The agent that a run left at its end, and what was measured of it.
AGENT = ("model", "evaluation.json", "play.json", "play_before.json", "report.html")
# What tells of it and of the checkpoints: theirs too, where they are the run's that goes on.
TOLD = ("run_config.json", ABOUT, CODE, "training_log.csv")
# What a run and the commands beside it write, its checkpoints apart.
LEFT = (*AGENT, *TOLD, LOG, RUN_ID, "tensorboard", "profile")


def make_way(output: Path, step: int, total: int) -> Path | None:
    """Move what a run left in OUTPUT beyond `step`, where another goes on, to OUTPUT/before_1 (or 2, …): at step 0 all
    of it, else the checkpoints, and its agent where `total` steps leave some to train. It would pass for the new run's:
    as its newest, its best, its agent. Returns the place, or None where there was nothing. Raises OSError.
    """
    numbered = {folder: folder.name.removeprefix(PREFIX) for folder in output.glob(f"{PREFIX}*")}
    beyond = [folder for folder, number in numbered.items() if number.isdecimal() and int(number) > step]
    if (output / "model").exists() or (step == 0 and beyond):
        left = LEFT if step == 0 else AGENT if step < total else ()
        beyond += [output / name for name in left if (output / name).exists()]
    if not beyond:
        return None
    number = 1
    while (output / f"{PLACE}{number}").exists():
        number += 1
    place = output / f"{PLACE}{number}"
    place.mkdir()
    for path in beyond:
        path.rename(place / path.name)
    for name in TOLD:
        if (output / name).exists():  # and stays for the run that goes on
            shutil.copy2(output / name, place / name)
    log.warning(
        "what an earlier run had left here beyond step %d is in %s now: delete it if you don't need it", step, place
    )
    return place
