"""Steps of gradient descent, and the schedule of the step size."""

from __future__ import annotations

import torch


class LossNotFiniteError(RuntimeError):
    """A loss or a score is NaN or infinite. The training plan adds the phase, the step and the suspects to the message."""

    def __init__(self, value: float, message: str | None = None) -> None:
        super().__init__(message or f"The loss became {value}.")
        self.value = value


class GradientSteps:
    """Steps of an optimizer that go back if the loss stops being finite.

    Parameters
    ----------
    optimizer
        Optimizer of the parameters; parameters without gradient are unchanged.
    add
        Whether the loss is the part of this process in a sum over all processes.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, add: bool = False) -> None:
        self.optimizer, self.add = optimizer, add
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def step(self, loss: torch.Tensor) -> None:
        """Perform one step on a scalar loss.

        Raises
        ------
        LossNotFiniteError
            If the loss is not finite. The parameters then have the values of the last finite loss.
        """
        if not torch.isfinite(loss):
            for p, value in self._before:
                p.data.copy_(value)
            raise LossNotFiniteError(loss.item())
        params = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._before = [(p, p.detach().clone()) for p in params]
        # `backward` would average gradients over processes under a distributed strategy. Most steps compute the same loss in every
        # process, so gradients are only summed where each process has a part of the loss.
        for p, gradient in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
            p.grad = gradient
            if self.add and gradient is not None:
                torch.distributed.all_reduce(gradient)
        self.optimizer.step()


def cooled(step: int, steps: int) -> float:
    """Factor of the step size: 1 in the first half of the steps, then decreasing linearly to 0.

    Adam divides by the size of recent gradients. Near the optimum, steps of constant size would therefore amplify rounding errors, and
    the third digit would depend on the order of the cells.
    """
    return min(1.0, 2 * (1 - step / steps))
