"""The prior attempt's recipe, pinned: its settings, and its batches of battles padded to the longest.

What `launch.bench_train` measures as `prior`. Kept apart from the trainer, which packs.
"""

import torch

from model.modeling_turnwise import TurnwiseForOfflineRL


def prior_recipe() -> list[str]:
    """The prior attempt's settings, as far as its README tells them; everything not named is as in `default`.

    - 64 battles a micro-batch, two micro-batches a step (the bench sets both), one drawn window of each file, all
      padded to the longest of their micro-batch, so attention is over rows × length: by flash-attn's or torch's
      variable-length kernel with rows of equal length where the GPU has one, otherwise by SDPA over [rows, length]
      with a causal mask.
    - The Metamon paper's turn encoder; heads of 96 bins for 13 actions, 4 discounts and 4 critics.
    - bf16 autocast on CUDA; on a CPU fp32, in which that encoder is the faster one; nothing compiled.

    Kinder to it than it was: files are read and encoded by this repository's loader, and the objective is this
    repository's (value bins of the one action taken have a gradient). So what is compared is layout, encoder, head
    size and compilation, and not its reading of files.
    """
    precision = "bf16" if torch.cuda.is_available() else "fp32"
    return ["compile=false", "batch.plan=battles", "model.turn_encoder=transformer",
            "model.value_bins=96", "model.critics=4", f"precision={precision}"]  # fmt: skip


def pad_to_longest(pack: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A pack whose every window is followed by padding up to the longest: row-major [rows × length].

    `pack` must end in a padding row, which is what padding is copied from. Segments are of equal length.
    """
    count = int((pack["windows"][:, 0] >= 0).sum())
    starts = pack["cu_seqlens"][:count].long()
    lengths = pack["cu_seqlens"][1 : count + 1].long() - starts
    longest = int(lengths.max())
    if pack["valid"][-1]:
        raise ValueError("the pack does not end in a padding row: give its shape one row more than its windows need")
    place = torch.arange(longest)
    index = torch.where(place < lengths[:, None], starts[:, None] + place, pack["valid"].shape[0] - 1).flatten()
    by_turn = {key: value[index] for key, value in pack.items() if key not in ("cu_seqlens", "windows")}
    return {
        **by_turn,
        "position": place.int().repeat(count),
        "segment": torch.arange(count, dtype=torch.int32).repeat_interleave(longest),
        "cu_seqlens": torch.arange(count + 1, dtype=torch.int32) * longest,
        "windows": pack["windows"][:count],
    }


class RowsByLength:
    """Stands where a key-value cache would in the trunk's layers: keys and values are those of the row itself."""

    def __init__(self, length: int, device: torch.device):
        self.mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()

    def append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """k, v [B, T, H, d] → [B, H, T, d]."""
        return k.transpose(1, 2), v.transpose(1, 2)


def attend_by_rows(network: TurnwiseForOfflineRL) -> None:
    """Make `network.features` attend over [rows, length] of a `pad_to_longest` pack, by dense SDPA."""
    model = network.model

    def features(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        keys = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward")
        turn, entities = model.turn_encoder(*(batch[key] for key in keys))
        position = batch["position"].view(batch["cu_seqlens"].shape[0] - 1, -1)
        rows = RowsByLength(position.shape[1], turn.device)
        hidden = model.trunk(turn.view(*position.shape, -1), position, cache=rows)
        return hidden.flatten(0, 1), entities

    network.features = features
