"""What a step costs one GPU of several: memory, bytes over the links, seconds, its own and the host's.

Sources: ZeRO's memory and communication, Rajbhandari et al. 2020 (arXiv 1910.02054); ring collectives, Patarasuk and
Yuan 2009.
"""

from dataclasses import dataclass

from data.sampler import pack_shape
from trainer.config import RunConfig
from trainer.counting import Counted
from trainer.flops import PEAK_FLOPS

GIB = 2**30
STAGES = ("plain", "zero1", "zero2", "zero3", "fsdp2")
TURNS_PER_BATTLE = 41.0  # of the reference battles: DESIGN's histogram
BF16_SHARE = 0.8  # of fp32 working memory under bf16 autocast; counted for what is kept: 0.67 (tiny), 0.79 (small)
OVERHEAD_GIB = 1.5  # CUDA's context, kernels' workspaces, the allocator's gaps
# Seconds in which the host launches a micro-batch of a compiled step, counted for `base` on the stand-in for CUDA
# (launch/LOG.md): fewer layers take less. Of ZeRO 3 and FSDP2, which are not compiled whole, the least.
HOST_S = {"plain": 0.010, "zero1": 0.015, "zero2": 0.015, "zero3": 0.021, "fsdp2": 0.021}
HOST_GRAPHS_S = 0.0035  # with CUDA graphs, which one process alone may have


@dataclass(frozen=True)
class Gpu:
    """Of the vendor's data sheets: memory in GiB, dense peaks in FLOP/s (fp32 without TF32, which torch leaves off),
    NVLink, or PCIe where there is none, in bytes/s a direction."""

    memory: float
    bf16: float
    fp32: float
    link: float

    def peak(self, bf16: bool) -> float:
        return self.bf16 if bf16 else self.fp32


GPUS = {
    "h100-80gb": Gpu(79.6, PEAK_FLOPS["H100"], 67e12, 450e9),
    "h200-141gb": Gpu(139.8, PEAK_FLOPS["H200"], 67e12, 450e9),
    "a100-80gb": Gpu(79.3, PEAK_FLOPS["A100"], 19.5e12, 300e9),
    "a100-40gb": Gpu(39.4, PEAK_FLOPS["A100"], 19.5e12, 300e9),
    "b200-180gb": Gpu(178.0, PEAK_FLOPS["B200"], 75e12, 900e9),
    "l40s-48gb": Gpu(44.4, PEAK_FLOPS["L40S"], 91.6e12, 32e9),
    "rtx4090-24gb": Gpu(23.5, PEAK_FLOPS["RTX 4090"], 82.6e12, 32e9),
    "rtx3090-24gb": Gpu(23.5, PEAK_FLOPS["RTX 3090"], 35.6e12, 32e9),
}
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Assumed:
    """Figures that are not counted here."""

    mfu: float = 0.30  # share of the peak
    mfu_source: str = "assumed: no record was taken on this GPU"
    # Bytes/s a direction out of one machine (eight adapters of 400 Gb/s). NCCL lays as many rings as there are
    # adapters, and each leaves a machine once: a collective runs at this speed, not at one adapter's.
    network: float = 400e9
    overlap: float = 0.5  # share of the compute time behind which communication can hide


def memory(counted: Counted, stage: str, world: int, turns: int, bf16: bool) -> dict[str, float]:
    """Bytes on each GPU by part, for one process with packs of `turns` turns.

    plain: fp32 parameters, gradients, the optimizer's moments (DDP: a second copy of the gradients in its buckets).
    ZeRO: parameters and gradients in the run's precision, fp32 masters and moments shared out; stage 2 shares the
    gradients, stage 3 and FSDP2 the parameters too, two layers of which are whole at a time.
    """
    p, wide = counted.parameters, 2 if bf16 else 4
    whole_layers, moments = 2 * counted.layer, 4 * counted.moments
    parts = {
        "plain": {
            "parameters": 4 * p,
            "gradients": 4 * p * (1 if world == 1 else 2),
            "optimizer": moments,
        },
        "zero1": {"parameters": wide * p, "gradients": wide * p, "optimizer": (4 * p + moments) / world},
        "zero2": {"parameters": wide * p, "gradients": wide * p / world, "optimizer": (4 * p + moments) / world},
        "zero3": {
            "parameters": wide * (p / world + whole_layers),
            "gradients": wide * (p / world + counted.layer),
            "optimizer": (4 * p + moments) / world,
        },
        "fsdp2": {
            "parameters": 4 * (p / world + whole_layers),
            "gradients": 4 * (p / world + counted.layer),
            "optimizer": moments / world,
        },
    }[stage]
    if stage.startswith("zero"):
        parts["buckets"] = wide * min(p, 500_000_000)
    working = counted.working_bytes * turns * (BF16_SHARE if bf16 else 1.0)
    return {**parts, "targets": 4 * counted.targets, "average": 4 * counted.averaged, "working": working}


def communicated(counted: Counted, stage: str, world: int, accumulate: int, bf16: bool) -> float:
    """Bytes that each GPU sends in one optimizer step, ring collectives: an all-reduce costs twice its tensor, a
    gather or scatter once, times (W − 1)/W. Stage 3 and FSDP2 gather for every micro-batch's forward and backward."""
    if world == 1:
        return 0.0
    p, ring, wide = counted.parameters, (world - 1) / world, 2 if bf16 else 4
    per_step = {
        "plain": 2 * 4 * p,
        "zero1": 2 * wide * p,
        "zero2": wide * (accumulate + 1) * p,
        "zero3": 3 * wide * p * accumulate,
        "fsdp2": (2 * 4 * accumulate + 4) * p,
    }
    return per_step[stage] * ring


def seconds_a_step(
    counted: Counted, stage: str, world: int, config: RunConfig, gpu: Gpu, assumed: Assumed
) -> tuple[float, float]:
    """Of the GPU: compute at the assumed share of the peak, and what of the communication does not hide behind it. Of
    the host, which launches it meanwhile: the longer of the two is the step's."""
    turns, bf16 = turns_a_pack(config) * config.batch.accumulate, config.precision != "fp32"
    compute = counted.flops * turns / (gpu.peak(bf16) * assumed.mfu)
    link = gpu.link if world <= GPUS_PER_NODE else min(gpu.link, assumed.network)
    sent = communicated(counted, stage, world, config.batch.accumulate, bf16)
    graphs = config.cuda_graphs and stage == "plain" and world == 1
    host = (HOST_GRAPHS_S if graphs else HOST_S[stage]) * config.batch.accumulate
    # Stages 1 and 2 send what lies in their one bucket when the backward pass is done (ds_configs).
    hidden = 0.0 if stage in ("zero1", "zero2") else assumed.overlap * compute
    return compute + max(0.0, sent / link - hidden), host


def turns_a_pack(config: RunConfig) -> int:
    """Turns that one process trains on in a micro-batch. Raises ValueError where no pack can be made so."""
    return pack_shape(config.batch, config.data.max_turns, TURNS_PER_BATTLE).turns
