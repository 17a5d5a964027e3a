from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ._base import DoseResponse, Generator
from ._dose import DOSE_RESPONSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

MANY_ROWS = 1000  # from which the maps are computed once for all doses of a drug in a line


class HillGenerator(Generator):
    r"""Sparse linear maps of the drug's features with a dose response.

    .. math:: \ell = F L + \ell_0, \qquad \psi = F E \odot g(F, c) + e_0

    :math:`F` are features (conditions x features), :math:`c` doses, :math:`L` and :math:`E` weights. The dose response :math:`g` is the
    same for all targets of a drug. It is Hill's :math:`c / (c + e^{F k + k_0})` by default, and 1 without doses. Only hard interventions
    (``baseline``) have an intercept :math:`e_0`. For a shift, the intercept could explain a gene that is the target of one feature, and
    the intercept is not sparse. An L1 penalty keeps :math:`E` sparse. After pruning, the remaining effects are not shrunk.

    With several cell lines, a feature has a common effect and a deviation in every line: :math:`F` becomes
    :math:`(F, F \otimes \text{line})`. An unmeasured line has the common effect.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        Parameters of :class:`Generator`.
    effect_penalty, logit_penalty, line_penalty
        L1 weights in nats per unit, of effects, logits, and the deviations of lines. Until pruning, deviations have the larger of the
        first and last weight.
    """

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
        self._repeated: list[tuple[TreatmentInputs, TreatmentInputs, Tensor]] = []

    @property
    def n_codes(self) -> int:
        """Length of the code of a drug."""
        return self.n_features

    @property
    def n_inputs(self) -> int:
        """Length of the input of the maps."""
        return self.n_codes * (1 + (self.n_lines if self.n_lines > 1 else 0))

    @torch.no_grad()
    def reset(self) -> None:
        """Set every map to 0. The penalty keeps unused features at 0."""
        super().reset()
        for parameter in self.parameters():
            parameter.zero_()
        self.kept.fill_(True)
        self.pruned.fill_(False)

    def code(self, inputs: TreatmentInputs) -> Tensor:
        """Code of the drugs, ``(rows, codes)``: their features."""
        return inputs.features

    def encode(self, inputs: TreatmentInputs) -> Tensor:
        """Input of the maps: the drug's code, and a copy of the code in the columns of its line."""
        code = self.code(inputs)
        if self.n_lines == 1:
            return code
        line = inputs.line[:, None] == torch.arange(self.n_lines, device=inputs.line.device)
        return torch.cat([code, (line[:, :, None] * code[:, None, :]).flatten(1)], dim=1)

    def of_drugs(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows of single drugs, ``(rows, genes)`` each."""
        distinct, row = self._distinct(inputs)
        f = self.encode(distinct)
        # A feature with a pruned effect may lower the probability of a target, but it may not raise it.
        weight = torch.where(self.kept, self.logit, self.logit.clamp(max=0))
        psi, logits = f @ (self.effect * self.kept), f @ weight
        if row is not None:
            psi, logits = psi[row], logits[row]
        psi = psi * self.dose_response(f, inputs.log_dose, row)
        psi = psi if self.offset is None else psi + self.offset
        return self.at_dose_zero(logits + self.logit_0, inputs.log_dose), psi

    def _distinct(self, inputs: TreatmentInputs) -> tuple[TreatmentInputs, Tensor | None]:
        """Distinct drugs in lines among many rows, and the place of every row among them; few rows as they are.

        The maps of features do not depend on the dose, and their products take most of the time of a training step.
        """
        if len(inputs.drug) < MANY_ROWS:
            return inputs, None
        # Steps of a training repeat the same training and validation inputs. The inputs themselves are kept beside, so that no other
        # object can take their identity.
        for known, distinct, row in self._repeated:
            if all(one is other for one, other in zip(known, inputs, strict=True)):
                return distinct, row
        names = torch.cat([inputs.features.nan_to_num(), inputs.drug[:, None], inputs.line[:, None]], dim=1)
        _, row = torch.unique(names, dim=0, return_inverse=True)
        first = torch.full((int(row.max()) + 1,), len(row)).scatter_reduce_(0, row, torch.arange(len(row)), "amin")
        distinct = inputs.take(first)
        self._repeated = [*self._repeated[-1:], (inputs, distinct, row)]
        return distinct, row

    def release(self) -> None:
        """Drop the inputs that were kept between training steps."""
        self._repeated = []

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        r"""Penalty on the maps in nats, given the logits and psi of the training conditions.

        Besides the L1 and L2 penalties, it contains :math:`\sum_{kj} (1 - \sigma(\ell_{kj})) (\psi_{kj} - e_{0j})^2`. Without this term the
        likelihood would not restrict psi of genes that are not targets. Two features may occur together in all drugs with a target. The
        term then assigns the effect to the feature that is absent from drugs without this target. Until pruning, the penalty on an
        offset is twice the penalty on an effect. Otherwise the offset would explain a gene that is the target of one feature.
        """
        by_features = psi if self.offset is None else psi - self.offset
        idle = ((1 - torch.sigmoid(logits.detach())) * by_features**2).sum()
        size = self.effect.abs().sum() + (0.0 if self.offset is None else 2 * self.offset.abs().sum())
        effect = torch.where(self.pruned, 0.0, self.effect_penalty) * size
        # Before pruning, effect_penalty already applies to the deviations of lines, so only the excess of line_penalty is added.
        # After pruning, effect_penalty is 0 and line_penalty applies alone.
        line = torch.where(self.pruned, self.line_penalty, max(self.line_penalty - self.effect_penalty, 0.0))
        effect = effect + line * self.effect[self.n_codes :].abs().sum()
        return idle + effect + self.logit_penalty * self.logit.abs().sum() + self.dose_response.penalty()

    @torch.no_grad()
    def prune(self, share: float = 0.3) -> None:
        """Remove effects below a share of the gene's largest effect, and end the L1 penalty on the remaining effects."""
        size = self.effect.abs()
        self.kept.copy_(size >= share * size.amax(0))
        self.pruned.fill_(True)
