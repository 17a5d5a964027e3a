from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ._hill import HillGenerator

if TYPE_CHECKING:
    from torch import Tensor

    from scgim.module._treatment_inputs import TreatmentInputs


class IdentityGenerator(HillGenerator):
    """The maps of :class:`HillGenerator` on the drug's identity: every drug has its own targets, common to its doses.

    It predicts no effect for unmeasured drugs.
    """

    pools_drugs = needs_features = False

    def __init__(self, n_features: int, n_genes: int, **options) -> None:
        super().__init__(n_features, n_genes, **{"effect_penalty": 0.0, "logit_penalty": 0.0} | options)

    @property
    def n_codes(self) -> int:
        """Number of training drugs."""
        return self.n_drugs

    def code(self, inputs: TreatmentInputs) -> Tensor:
        """One-hot identity of the drugs, ``(rows, drugs)``; all 0 for an unmeasured drug."""
        return (inputs.drug[:, None] == torch.arange(self.n_drugs, device=inputs.drug.device)).to(torch.float64)

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        """Penalty on the maps in nats, with an L2 penalty on the logits.

        L2 replaces L1, because no feature has to be selected and the gradient of L1 at 0 depends on rounding errors.
        """
        return super().penalty(logits, psi) + 1e-3 * (self.logit**2).sum()

    def prune(self, share: float = 0.3) -> None:
        """Keep every effect, because the drugs have no features in common."""
