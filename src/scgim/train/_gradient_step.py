"""A step of gradient descent, and the schedule of the step size."""

from __future__ import annotations

import torch


def gradient_step(
    optimizer: torch.optim.Optimizer, loss: torch.Tensor, *, add: bool = False, where: str = "training"
) -> None:
    """Perform one optimizer step on a loss.

    Parameters
    ----------
    optimizer
        Optimizer of the parameters; parameters without gradient are unchanged.
    loss
        Scalar loss.
    add
        Whether the loss is the part of this process in a sum over all processes.
    where
        Name of the step in the error message.

    Raises
    ------
    RuntimeError
        If the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise RuntimeError(
            f"The loss became {loss.item()} in {where}. Smaller steps may help: "
            "plan_kwargs={'mechanism_lr': 1e-3, 'generator_lr': 1e-2}."
        )
    params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    # `backward` would average gradients over processes under a distributed strategy. Most steps compute the same loss in every
    # process, so gradients are only summed where each process has a part of the loss.
    for p, gradient in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
        p.grad = gradient
        if add and gradient is not None:
            torch.distributed.all_reduce(gradient)
    optimizer.step()


def cooled(step: int, steps: int) -> float:
    """Factor of the step size: 1 in the first half of the steps, then decreasing linearly to 0.

    Adam divides by the size of recent gradients. Near the optimum, steps of constant size would therefore amplify rounding errors, and
    the third digit would depend on the order of the cells.
    """
    return min(1.0, 2 * (1 - step / steps))
