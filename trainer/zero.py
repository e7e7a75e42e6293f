"""DeepSpeed's ZeRO 1 and 2 without a wait for the device: what they have the host look at stays where it is."""

import torch
import torch.distributed as dist


def keep_on_device(zero) -> None:
    """Give a ZeRO 1 or 2 optimizer two methods that do what its own do and read nothing on the host.

    Its norm casts each gradient to fp64, three launches and 20 bytes of traffic a number, and waits for the device four
    times a step; its clipping waits twice more, to see whether the norm is finite. Where it is not, the norm is inf
    here too, and `TrainStep` has the update left out.
    """

    def get_grad_norm_direct(gradients, params, norm_type=2) -> torch.Tensor:
        """L2 norm of a group's gradients over all processes, fp32 []."""
        held = [gradient.detach() for gradient in gradients if not getattr(gradient, "_zero_padding", False)]
        total = torch.zeros((), device=zero.device)
        if held:
            # As clip_grad_norm_ takes it; in fp32 also of gradients in bf16, which it would round the norm to.
            total += torch.stack(torch._foreach_norm(held, 2.0, dtype=torch.float32)).square().sum()
        dist.all_reduce(total, group=zero.dp_process_group)
        return total.sqrt()

    def unscale_and_clip_grads(flats, total_norm) -> None:
        """Divide flat gradients by the loss's scale, and by norm over `clip_grad` where that is above 1."""
        scale = zero.loss_scale
        if zero.clip_grad > 0:
            scale = scale * ((total_norm / scale + 1e-6) / zero.clip_grad).clamp(min=1.0)
        elif scale == 1.0:
            return
        for flat in flats:
            flat.mul_(1.0 / scale)

    zero.get_grad_norm_direct, zero.unscale_and_clip_grads = get_grad_norm_direct, unscale_and_clip_grads
