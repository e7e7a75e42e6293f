"""What training changes, whole and in fp32, whichever engine holds it: the contents of a checkpoint.

One form for plain PyTorch, DDP, FSDP2 and DeepSpeed ZeRO 0–3: parameters and each of the optimizer's moments by the
parameter's name. So a checkpoint resumes under any engine and on any number of processes, bit by bit, and needs none of
DeepSpeed's conversions (its own shards fit the world that wrote them alone).
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from trainer.average import WeightAverage
from trainer.masters import fp32_master
from trainer.objective import OfflineRL

Tensors = dict[str, torch.Tensor]
ADAMS = ("exp_avg", "exp_avg_sq")  # the moments of a group that names none


@dataclass
class TrainingState:
    """Copies on the CPU, on the main process; empty tensors' places on others.

    network: parameters (fp32) and persistent buffers by name. moments: "exp_avg/NAME" …, fp32, shaped as their
    parameter. targets: the target heads, fp32. updates: how many updates the optimizer has applied. average: as
    network, of the averaged weights; empty without one.
    """

    network: Tensors
    moments: Tensors
    targets: Tensors
    updates: int
    average: Tensors = field(default_factory=dict)


def gather(
    accelerator, module: nn.Module, objective: OfflineRL, optimizer, average: WeightAverage | None = None
) -> TrainingState:
    """Copy the state out of a run's prepared parts. Every process must call it, at the same step."""
    holder = _holder(accelerator, module, optimizer)
    keep = accelerator.is_main_process
    network, moments = {}, {}
    kinds = holder.moment_kinds()
    for name, parameter in objective.network.named_parameters():
        # Gathered one by one: no device ever holds a second whole copy of the model.
        value = fp32_master(parameter)
        if keep:
            network[name] = _copied(value)
        for kind in kinds:
            moment = holder.moment(parameter, kind)
            if keep and moment is not None:
                moments[f"{kind}/{name}"] = _copied(moment)
    if keep:
        parameters = dict(objective.network.named_parameters())
        for name, value in objective.network.state_dict().items():
            if name not in parameters:
                network[name] = _copied(value)
    targets = {name: _copied(value) for name, value in objective.targets.state_dict().items()} if keep else {}
    averaged = {} if average is None or not keep else average.network.state_dict()
    averaged = {name: _copied(value) for name, value in averaged.items()}
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()  # once, behind all copies
    return TrainingState(network, moments, targets, holder.updates(), averaged)


def scatter(
    state: TrainingState,
    accelerator,
    module: nn.Module,
    objective: OfflineRL,
    optimizer,
    average: WeightAverage | None = None,
) -> None:
    """Put a state, whole on every process, into prepared parts, at a run's start or in its midst.

    An average that the state does not have, and targets (`objective.target` was another), start at the state's weights.
    Raises ValueError naming the first parameter that is missing or of another shape.
    """
    holder = _holder(accelerator, module, optimizer)
    parameters = dict(objective.network.named_parameters())
    for name, parameter in parameters.items():
        expected = tuple(getattr(parameter, "ds_shape", parameter.shape))
        found = tuple(state.network[name].shape) if name in state.network else "nothing"
        if found != expected:
            raise ValueError(f"{name}: the run's network has {expected}, the checkpoint {found}")
    unknown = sorted(name for name in state.network if name not in parameters and name not in _buffers(objective))
    if unknown:
        raise ValueError(f"{unknown[0]}: in the checkpoint, but not in the run's network")
    kinds = sorted({name.split("/", 1)[0] for name in state.moments})
    with torch.no_grad():
        holder.make_room(kinds, state.updates)
        for name, parameter in parameters.items():
            holder.set_value(parameter, state.network[name])
            for kind in kinds:
                moment = state.moments.get(f"{kind}/{name}")
                if moment is not None:
                    holder.set_moment(parameter, kind, moment)
        holder.refresh()
        for name, buffer in _buffers(objective).items():
            buffer.copy_(state.network[name])
    copies = objective.targets.state_dict()
    objective.targets.load_state_dict({name: state.targets.get(name, state.network.get(name)) for name in copies})
    if average is not None:
        average.load(state.average or state.network)


def _buffers(objective: OfflineRL) -> Tensors:
    """Persistent buffers of the network by name (running statistics of the scalar critics)."""
    kept = objective.network.state_dict(keep_vars=True)
    return {name: value for name, value in kept.items() if not isinstance(value, nn.Parameter)}


def _copied(value: torch.Tensor) -> torch.Tensor:
    """A CPU copy that later steps don't change; of what a GPU holds it is on its way.

    `non_blocking` has PyTorch take page-locked memory, which it keeps for the next checkpoint: into fresh pages a GPU's
    gigabytes go several times slower, and training waits for them.
    """
    return value.detach().contiguous().to("cpu", copy=True, non_blocking=True)


def _holder(accelerator, module, optimizer) -> "_Plain":
    zero = getattr(module, "optimizer", None) if accelerator.distributed_type == "DEEPSPEED" else None
    if zero is not None and hasattr(zero, "fp32_partitioned_groups_flat"):
        return _Zero3(zero)
    if zero is not None and hasattr(zero, "single_partition_of_fp32_groups"):
        return _Zero12(zero)
    return _Plain(optimizer if zero is None else zero)


class _Plain:
    """Parameters and optimizer of PyTorch's own: one process, DDP, FSDP2 (whose parameters are DTensors)."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def _kinds_by_flat(self, kinds: list[str]) -> list[tuple[torch.Tensor, list[str]]]:
        """Each stepped tensor, and which of `kinds` its group keeps: the checkpoint may be another optimizer's."""
        groups = self.optimizer.param_groups
        known = [[kind for kind in kinds if kind in group.get("moments", ADAMS)] for group in groups]
        return [(p, own) for group, own in zip(groups, known, strict=True) for p in group["params"]]

    def moment_kinds(self) -> list[str]:
        kinds = set()
        for state in self.optimizer.state.values():
            kinds |= {kind for kind, value in state.items() if torch.is_tensor(value) and value.dim() > 0}
        return sorted(kinds)

    def updates(self) -> int:
        steps = [int(state["step"]) for state in self.optimizer.state.values() if "step" in state]
        return max(steps, default=0)

    def moment(self, parameter, kind: str) -> torch.Tensor | None:
        value = self.optimizer.state.get(parameter, {}).get(kind)
        return None if value is None else whole(value)

    def make_room(self, kinds: list[str], updates: int) -> None:
        """Moments of zero for every stepped tensor, as after the optimizer's first step."""
        self.optimizer.state.clear()
        for flat, own in self._kinds_by_flat(kinds):
            if own:
                self.optimizer.state[flat]["step"] = torch.tensor(float(updates), device=flat.device)
            for kind in own:
                self.optimizer.state[flat][kind] = torch.zeros_like(flat, memory_format=torch.preserve_format)

    def set_value(self, parameter, value: torch.Tensor) -> None:
        parameter.copy_(_like(value, parameter))

    def set_moment(self, parameter, kind: str, value: torch.Tensor) -> None:
        kept = self.optimizer.state.get(parameter, {}).get(kind)
        if kept is not None:  # another optimizer's is left behind
            kept.copy_(_like(value, parameter))

    def refresh(self) -> None:
        """Bring the parameters that the forward uses up to the masters."""


class _Zero(_Plain):
    """DeepSpeed: its optimizer around PyTorch's, the state in partitions."""

    def __init__(self, zero):
        super().__init__(zero.optimizer)
        self.zero = zero

    def _flats(self) -> list[torch.Tensor]:
        """The tensors that the optimizer steps."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _kinds_by_flat(self, kinds: list[str]) -> list[tuple[torch.Tensor, list[str]]]:
        return [(flat, kinds) for flat in self._flats()]

    def moment(self, parameter, kind: str) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(parameter, kind)


class _Zero12(_Zero):
    """DeepSpeed ZeRO 1 and 2: flat fp32 partitions, one a parameter group; a parameter knows its fragment."""

    def _flats(self) -> list[torch.Tensor]:
        return list(self.zero.single_partition_of_fp32_groups)

    def moment_kinds(self) -> list[str]:
        kinds = super().moment_kinds()
        self._link(kinds)
        return kinds

    def make_room(self, kinds: list[str], updates: int) -> None:
        super().make_room(kinds, updates)
        self._link(kinds)

    def _link(self, kinds: list[str]) -> None:
        """Let parameters find their fragments of the moments. DeepSpeed links them once, after the first group's first
        step, when the other groups have none yet."""
        self.zero._hp_optimizer_states_linked = False
        if kinds:
            self.zero._lazy_init_hp_params_optimizer_state()

    def set_value(self, parameter, value: torch.Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        safe_set_full_fp32_param(parameter, value.to(parameter.device))

    def set_moment(self, parameter, kind: str, value: torch.Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(parameter, value.to(parameter.device), kind)

    def refresh(self) -> None:
        self.zero.update_lp_params()


class _Zero3(_Zero):
    """DeepSpeed ZeRO 3: parameters, masters and moments in partitions."""

    def _flats(self) -> list[torch.Tensor]:
        return list(self.zero.fp32_partitioned_groups_flat)

    def set_value(self, parameter, value: torch.Tensor) -> None:
        from deepspeed.utils import safe_set_local_fp32_param

        safe_set_local_fp32_param(parameter, self._piece(parameter, value))

    def set_moment(self, parameter, kind: str, value: torch.Tensor) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(parameter, self._piece(parameter, value), kind)

    def refresh(self) -> None:
        self.zero._partition_all_parameters()
        for place in range(len(self.zero.fp32_partitioned_groups_flat)):
            self.zero._reassign_or_swap_out_partitioned_parameters(place)
        if self.zero.persistent_parameters:
            self.zero.persistent_parameters[0].all_gather(self.zero.persistent_parameters)

    @staticmethod
    def _piece(parameter, value: torch.Tensor) -> torch.Tensor:
        """This process's part of a whole value; the last part is padded (DeepSpeed's own setter overruns there)."""
        size = parameter.ds_tensor.ds_numel
        start = size * torch.distributed.get_rank(parameter.ds_process_group)
        flat = value.flatten()[start : start + size].to(parameter.device)
        return nn.functional.pad(flat, (0, size - flat.numel()))


def whole(value: torch.Tensor) -> torch.Tensor:
    """The full tensor of one that FSDP2 has sharded."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """`value` where and as `parameter` is: on its device, sharded if that is."""
    value = value.to(device=parameter.device, dtype=parameter.dtype)
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
