"""Numbers that one optimizer step of several processes sends, by collective, as a JSON object on rank 0.

torchrun --nproc-per-node 2 tests/trainer/sent_numbers.py settings…
"""

import json
import sys
from collections import Counter

import torch
import torch.distributed as dist

from trainer.config import load_config
from trainer.loop import Run

COLLECTIVES = ("all_reduce", "reduce", "reduce_scatter_tensor", "all_gather_into_tensor", "broadcast")


def main(settings: list[str]) -> None:
    """The first step links what DeepSpeed links once: the second is counted."""
    sent, counting = Counter(), [False]

    def counted(name, call):
        def collective(*args, **kwargs):
            if counting[0]:
                sent[name] += max(x.numel() for x in (*args, *kwargs.values()) if torch.is_tensor(x))
            return call(*args, **kwargs)

        return collective

    for name in COLLECTIVES:
        setattr(dist, name, counted(name, getattr(dist, name)))
    run = Run(load_config(None, settings))
    run.course.open(0)
    for step in (0, 1):
        counting[0] = step == 1
        run.step(step, run.course.micro(step), detailed=False)
    if run.main:
        print(json.dumps({"parameters": sum(p.numel() for p in run.objective.network.parameters()), **sent}))


if __name__ == "__main__":
    main(sys.argv[1:])
