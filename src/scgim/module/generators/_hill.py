from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ._base import DoseResponse, Generator
from ._dose import DOSE_RESPONSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs


class HillGenerator(Generator):
    r"""Sparse linear maps of the drug's features with a dose response.

    .. math:: \ell = F L + \ell_0, \qquad \psi = F E \odot g(F, c) + e_0

    for features :math:`F` (conditions x features) and dose :math:`c`. The dose response :math:`g`, one for all targets of a
    drug, is Hill's :math:`c / (c + e^{F k + k_0})` unless said otherwise, and 1 without doses. Shifts have no intercept
    :math:`e_0`: a gene that only one feature targets would be explained by it as well as by the feature, and unlike the
    feature it is not sparse. Values that hard interventions set (``baseline``) do. An L1 penalty keeps :math:`E` sparse;
    after pruning, what is left is no longer shrunk.

    With several cell lines every feature acts in all of them alike, and besides in each of them as much more or less as its
    data insist on: :math:`F` becomes :math:`(F, F \otimes \text{line})`. A line that was not measured has the common part.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        See :class:`Generator`.
    effect_penalty, logit_penalty, line_penalty
        L1 weights in nats per unit; the last of what a line's effects differ from the common ones, if that is more.
    """

    pays_full_penalty = False  # the L1 penalty has paid

    def __init__(
        self,
        n_features: int,
        n_genes: int,
        *,
        n_drugs: int,
        n_lines: int = 1,
        dosed: bool,
        baseline: bool = False,
        dose_response: DoseResponse = "hill",
        log_doses: Sequence[float] = (),
        effect_penalty: float = 30.0,
        logit_penalty: float = 0.3,
        line_penalty: float = 5.0,
    ) -> None:
        super().__init__(n_features, n_genes, n_drugs=n_drugs, n_lines=n_lines, dosed=dosed, baseline=baseline)
        self.effect_penalty, self.logit_penalty = effect_penalty, logit_penalty
        self.line_penalty = line_penalty
        shape = (self.n_inputs, n_genes)
        self.logit, self.effect = (nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for _ in range(2))
        self.logit_0 = nn.Parameter(torch.zeros(n_genes, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(n_genes, dtype=torch.float64)) if baseline else None
        self.dose_response = DOSE_RESPONSES[dose_response if dosed else "none"](self.n_inputs, log_doses)
        self.register_buffer("kept", torch.ones(shape, dtype=torch.bool))
        self.register_buffer("pruned", torch.tensor(False))

    @property
    def n_codes(self) -> int:
        """Length of what the maps know of a drug."""
        return self.n_features

    @property
    def n_inputs(self) -> int:
        """Length of the maps' input."""
        return self.n_codes * (1 + (self.n_lines if self.n_lines > 1 else 0))

    @torch.no_grad()
    def reset(self) -> None:
        """Start over: every map at zero, which by the penalty is also where unused features stay."""
        super().reset()
        for parameter in self.parameters():
            parameter.zero_()
        self.kept.fill_(True)
        self.pruned.fill_(False)

    def code(self, inputs: TreatmentInputs) -> Tensor:
        """What the maps know of drugs, ``(rows, codes)``: their features."""
        return inputs.features

    def encode(self, inputs: TreatmentInputs) -> Tensor:
        """Input of the maps: the drug's code, and once more in the place of its line."""
        code = self.code(inputs)
        if self.n_lines == 1:
            return code
        line = inputs.line[:, None] == torch.arange(self.n_lines, device=inputs.line.device)
        return torch.cat([code, (line[:, :, None] * code[:, None, :]).flatten(1)], dim=1)

    def forward(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """As in the class above."""
        f = self.encode(inputs)
        # a feature whose effect was pruned may still rule a target out, but no longer call one
        weight = torch.where(self.kept, self.logit, self.logit.clamp(max=0))
        psi = f @ (self.effect * self.kept) * self.dose_response(f, inputs.log_dose)
        psi = psi if self.offset is None else psi + self.offset
        return self.at_dose_zero(f @ weight + self.logit_0, inputs.log_dose), psi

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        r"""Nats charged for the maps, given what they said of the training conditions.

        Besides L1 and L2 it is :math:`\sum_{kj} (1 - \sigma(\ell_{kj})) (\psi_{kj} - e_{0j})^2`: where a mechanism is not
        touched its psi meets no data, and of two features that come together in every drug that touches it, the one that
        also comes where it is untouched must not take a share of the effect. Until pruning an offset costs as much as two
        effects, or it would explain a gene that one feature targets, and nothing would be left to say which one.
        """
        by_features = psi if self.offset is None else psi - self.offset
        idle = ((1 - torch.sigmoid(logits.detach())) * by_features**2).sum()
        size = self.effect.abs().sum() + (0.0 if self.offset is None else 2 * self.offset.abs().sum())
        effect = torch.where(self.pruned, 0.0, self.effect_penalty) * size
        # a line's differences pay the larger of the two penalties, and after pruning, which ends the other, their own
        line = torch.where(self.pruned, self.line_penalty, max(self.line_penalty - self.effect_penalty, 0.0))
        effect = effect + line * self.effect[self.n_codes :].abs().sum()
        return idle + effect + self.logit_penalty * self.logit.abs().sum() + self.dose_response.penalty()

    @torch.no_grad()
    def prune(self, share: float = 0.3) -> None:
        """Drop effects below a share of the gene's largest, and stop shrinking the others."""
        size = self.effect.abs()
        self.kept.copy_(size >= share * size.amax(0))
        self.pruned.fill_(True)
