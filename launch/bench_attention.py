"""Packed attention alone, one layer forward and backward, by every implementation that is present.

    python -m launch.bench_attention [--preset base] [--data data/sample] [--implementations sdpa eager …]

The pack is the loader's first, of real window lengths; q, k and v are random. On CUDA in bf16, compiled as in training,
and the time is that of the kernels; on a CPU in fp32, by the wall. Errors are against fp32 `eager` on the same pack.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from data.dataset import BattleDataset
from data.loader import make_loader
from data.terminal import first_line
from data.tokenizer import Tokenizer
from launch.part_clock import kernel_seconds
from launch.record import hardware, write_record
from model.attention import PackedLayout, available_implementations, choose_implementation, packed_attention, prepare
from model.configuration_turnwise import PRESETS, preset
from trainer.config import load_config

REPEATS = 20


def layer(pack: dict[str, torch.Tensor], heads: int, width: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """q, k, v and the output's gradient, fp32 [N, heads, width], the same for every implementation."""
    generator = torch.Generator().manual_seed(0)
    shape = (pack["valid"].shape[0], heads, width)
    return tuple(torch.randn(shape, generator=generator).to(device) for _ in range(4))


def differentiate(attend: Callable, layout: PackedLayout, q, k, v, out_gradient) -> tuple[torch.Tensor, ...]:
    """Output and the gradients of q, k and v."""
    q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
    out = attend(q, k, v, layout)
    return (out, *torch.autograd.grad(out, (q, k, v), out_gradient))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of one call: its kernels' on CUDA, whose launches training overlaps with other work; the wall's on a CPU. Raises
    RuntimeError where kernels cannot be seen."""
    if device.type != "cuda":
        return Timer("run()", globals={"run": run}).blocked_autorange(min_run_time=2).median
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(REPEATS):
            run()
        torch.cuda.synchronize()
    spent = kernel_seconds(profiler)
    if spent is None:
        raise RuntimeError("the profiler saw no kernel: there is no CUPTI for it here")
    return spent / REPEATS


def measure(name: str, pack: dict[str, torch.Tensor], tensors: tuple, expected: tuple, max_turns: int) -> dict:
    """One implementation's times and errors; `expected` are output and gradients of the reference."""
    device = tensors[0].device
    layout = prepare(pack["segment"].to(device), pack["cu_seqlens"].to(device), max_turns, name)
    attend = packed_attention
    if device.type == "cuda":
        torch.compiler.reset()  # the compiler gives up on a function that it has compiled eight times
        attend = torch.compile(packed_attention, dynamic=False)
        tensors = tuple(t.bfloat16() for t in tensors)
    found = differentiate(attend, layout, *tensors)
    if not all(t.isfinite().all() for t in found):
        raise RuntimeError("output or gradients are not finite")  # no NaN is greater than another error
    errors = [
        ((ours.float() - theirs).abs().max() / theirs.abs().max()).item()
        for ours, theirs in zip(found, expected, strict=True)
    ]

    def forward() -> None:
        with torch.no_grad():
            attend(*tensors[:3], layout)

    return {
        "forward_s": seconds(forward, device),
        "forward_and_backward_s": seconds(lambda: differentiate(attend, layout, *tensors), device),
        "error_of_output": errors[0],
        "error_of_gradients": max(errors[1:]),
    }


def table(results: dict, layers: int) -> str:
    """Markdown; a step's share is that of all layers."""
    lines = [f"| attention | forward, ms | and backward, ms | {layers} layers, ms a step | errors: output, gradients |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    failed = {name: found["failed"] for name, found in results.items() if "failed" in found}
    measured = [(name, found) for name, found in results.items() if name not in failed]
    for name, found in sorted(measured, key=lambda item: item[1]["forward_and_backward_s"]):
        both = 1e3 * found["forward_and_backward_s"]
        lines.append(
            f"| {name} | {1e3 * found['forward_s']:.3f} | {both:.3f} | {layers * both:.2f} | "
            f"{found['error_of_output']:.1e}, {found['error_of_gradients']:.1e} |"
        )
    return "\n".join([*lines, *(f"| {name} | failed: {error} | | | |" for name, error in failed.items())])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; write the record and print its table. Exit status 1 where one of them failed."""
    argv = sys.argv[1:] if argv is None else list(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(prog="python -m launch.bench_attention", description=first_line(__doc__))
    parser.add_argument("--preset", choices=list(PRESETS), default="base" if device.type == "cuda" else "tiny")
    parser.add_argument("--data", default="data/sample", help="battle files, or a token cache")
    parser.add_argument("--battles", type=int, default=128 if device.type == "cuda" else 16, help="in the pack")
    parser.add_argument("--implementations", nargs="+", help="names, of the Hub too (default: all that are present)")
    parser.add_argument("--records", type=Path, help="folder of the record (default: launch/records)")
    options = parser.parse_args(argv)
    names = [choose_implementation(n, device) for n in options.implementations or available_implementations(device)]

    config = load_config(None, [f"data.path={options.data}", f"batch.battles={options.battles}", "data.workers=0"])
    dataset = BattleDataset(config.data, Tokenizer.load(config.data.vocabulary), "train")
    pack = next(iter(make_loader(dataset, config.batch, seed=0, max_steps=1)))
    sizes, max_turns = preset(options.preset), config.data.max_turns
    heads = sizes["num_heads"]
    width = sizes["hidden_size"] // heads
    tensors = layer(pack, heads, width, device)
    reference = prepare(pack["segment"].to(device), pack["cu_seqlens"].to(device), max_turns, "eager")
    expected = differentiate(packed_attention, reference, *tensors)
    rows, windows = pack["valid"].shape[0], int((pack["windows"][:, 0] >= 0).sum())
    about = {"preset": options.preset, "rows": rows, "windows": windows, "heads": heads, "layers": sizes["num_layers"]}
    command = " ".join(["python -m launch.bench_attention", *argv])
    results = {}
    for name in names:
        try:
            results[name] = measure(name, pack, tensors, expected, max_turns)
        except Exception as error:  # of Triton, of a kernel's own checks: the others' figures are worth having
            results[name] = {"failed": (str(error).strip() or repr(error)).splitlines()[-1]}
        print(name, results[name], flush=True)
        path = write_record("attention", command, {**about, "implementations": results}, {"torch": torch.__version__},
                            options.records)  # fmt: skip
    shown = table(results, sizes["num_layers"])
    words = f"`{command}`: {heads} heads of {width}, {rows} rows in {windows} windows; {hardware()}."
    path.with_suffix(".md").write_text(f"# Attention alone\n\n{words}\n\n{shown}\n", encoding="utf-8")
    print(shown)
    return int(any("failed" in found for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())
