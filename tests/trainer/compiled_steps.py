"""Three compiled steps of a run, engine and all, in a process of its own: what the compiler counted → a JSON file.

python tests/trainer/compiled_steps.py OUT settings…
"""

import functools
import json
import sys
from itertools import islice
from pathlib import Path

from torch._dynamo.utils import counters

from data.loader import make_loader
from trainer import loop
from trainer.config import load_config


def main(out: str, settings: list[str]) -> None:
    # Graphs are the same with every backend; this one has no kernels to make.
    loop.compile_forward = functools.partial(loop.compile_forward, backend="eager")
    run = loop.Run(load_config(None, settings))
    packs = list(islice(make_loader(run.dataset, run.config.batch, seed=0, max_steps=3), 3))
    run.module.train()
    losses = [float(run.step(step, [pack])["loss/total"]) for step, pack in enumerate(packs)]
    compiled = {"frames": counters["frames"]["total"], "graphs": counters["stats"]["unique_graphs"]}
    Path(out).write_text(json.dumps({**compiled, "breaks": dict(counters["graph_break"]), "losses": losses}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
