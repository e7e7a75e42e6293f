"""One optimizer step in a process of its own (or of several): gradients and new parameters of rank 0 → a file.

python tests/trainer/one_step.py OUT settings…  — alone or under torchrun.
"""

import sys
from itertools import islice

import torch

from data.loader import make_loader
from trainer.config import load_config
from trainer.loop import Run


def main(out: str, settings: list[str]) -> None:
    run = Run(load_config(None, settings))
    accelerator, config = run.accelerator, run.config
    loader = make_loader(
        run.dataset, config.batch, seed=config.seed, rank=accelerator.process_index, world=accelerator.num_processes,
        max_steps=1,
    )  # fmt: skip
    seen = {}
    step = run.optimizer.step

    def note_and_step(*args, **kwargs):
        seen["gradient"] = {
            n: p.grad.clone() for n, p in run.objective.network.named_parameters() if p.grad is not None
        }
        return step(*args, **kwargs)

    run.optimizer.step = note_and_step
    packs = list(islice(iter(loader), config.batch.accumulate))
    assert loader.dropped_windows == 0
    run.module.train()
    run.step(0, packs)
    if accelerator.is_main_process:
        seen["parameters"] = {n: p.detach().clone() for n, p in run.objective.network.named_parameters()}
        seen["targets"] = run.objective.targets.state_dict()
        torch.save(seen, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
