"""A step of gradient descent, and how its size falls."""

from __future__ import annotations

import torch


def gradient_step(
    optimizer: torch.optim.Optimizer, loss: torch.Tensor, *, add: bool = False, where: str = "training"
) -> None:
    """Descend a loss once.

    Parameters
    ----------
    optimizer
        Of the parameters; those that need no gradient stay.
    loss
        A number.
    add
        Whether the loss is this process's part of a sum over all processes.
    where
        Names the step in the error.

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
    # not by backward: a strategy for several processes would average what most of our steps have in common
    for p, gradient in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
        p.grad = gradient
        if add and gradient is not None:
            torch.distributed.all_reduce(gradient)
    optimizer.step()


def cooled(step: int, steps: int) -> float:
    """Share of the step size: 1, then falling to 0 over the second half.

    Adam divides by the size of recent gradients, so near the optimum steps of constant size magnify rounding, and the order of the
    cells would show in the third digit.
    """
    return min(1.0, 2 * (1 - step / steps))
