from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ._hill import HillGenerator

if TYPE_CHECKING:
    from torch import Tensor

    from scgim.module._treatment_inputs import TreatmentInputs


class IdentityGenerator(HillGenerator):
    """The same maps on the drug's identity: every drug has its own targets, shared over its doses.

    It knows nothing of drugs that were not measured.
    """

    pools_drugs = needs_features = False

    def __init__(self, n_features: int, n_genes: int, **options) -> None:
        super().__init__(n_features, n_genes, **{"effect_penalty": 0.0, "logit_penalty": 0.0} | options)

    @property
    def n_codes(self) -> int:
        """Training drugs."""
        return self.n_drugs

    def code(self, inputs: TreatmentInputs) -> Tensor:
        """One-hot identity; a drug that was not measured has none."""
        return (inputs.drug[:, None] == torch.arange(self.n_drugs, device=inputs.drug.device)).to(torch.float64)

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        """As the class above, but smooth in the logits: nothing is to be selected, and at a kink rounding decides."""
        return super().penalty(logits, psi) + 1e-3 * (self.logit**2).sum()

    def prune(self, share: float = 0.3) -> None:
        """Keep every effect: nothing is shared between drugs, so none stands in for another."""
