"""Generators: from drug features and dose to a distribution over interventions.

A new generator is a class here and an entry in :data:`GENERATORS`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HillGenerator(nn.Module):
    r"""Sparse linear maps of the drug's features with a Hill dose response.

    .. math:: \ell = F L + \ell_0, \qquad \psi = F E \odot \frac{c}{c + e^{F k + k_0}}

    for features :math:`F` (contexts x features) and dose :math:`c`; without a dose the second factor is 1. The half-maximal
    dose :math:`e^{F k + k_0}` is the drug's, one for all its targets. :math:`\psi` has no intercept: a gene that only one
    feature targets would be explained by it as well as by the feature, and unlike the feature it is not sparse. An L1
    penalty keeps :math:`E` sparse; after pruning, what is left is no longer shrunk.

    Parameters
    ----------
    n_features, n_genes, n_drugs
        Sizes; drugs are those of the training data.
    dosed
        Whether contexts have a dose.
    effect_penalty, logit_penalty
        L1 weights in nats per unit.
    """

    pools_drugs = True  # says something of drugs that were never measured

    def __init__(
        self,
        n_features: int,
        n_genes: int,
        *,
        n_drugs: int,
        dosed: bool,
        effect_penalty: float = 30.0,
        logit_penalty: float = 0.3,
    ) -> None:
        super().__init__()
        self.n_drugs, self.dosed = n_drugs, dosed
        self.effect_penalty, self.logit_penalty = effect_penalty, logit_penalty
        shapes = {"logit": (n_features, n_genes), "logit_0": (n_genes,), "effect": (n_features, n_genes)}
        shapes |= {"log_ec50": (n_features,), "log_ec50_0": ()}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=torch.float64)))
        self.register_buffer("kept", torch.ones(n_features, n_genes, dtype=torch.bool))
        self.register_buffer("pruned", torch.tensor(False))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start over: every map at zero, which by the penalty is also where unused features stay."""
        for parameter in self.parameters():
            parameter.zero_()
        self.kept.fill_(True)
        self.pruned.fill_(False)

    def encode(self, features: Tensor, drug: Tensor) -> Tensor:
        """What the maps see of a drug: its features. ``drug`` is its training index, -1 if unseen."""
        return features

    def forward(self, features: Tensor, drug: Tensor, log_dose: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and shifts, ``(contexts, genes)`` each.

        ``features`` (contexts, features), ``drug`` (contexts,) int, ``log_dose`` (contexts,): log of dose over the
        training doses' geometric mean, so that no parameter depends on the dose's unit.
        """
        f = self.encode(features, drug)
        # a feature whose effect was pruned may still rule a target out, but no longer call one
        weight = torch.where(self.kept, self.logit, self.logit.clamp(max=0))
        logits, shift = f @ weight + self.logit_0, f @ (self.effect * self.kept)
        if self.dosed:
            shift = shift * torch.sigmoid(log_dose - f @ self.log_ec50 - self.log_ec50_0)[:, None]
        return logits, shift

    def penalty(self, logits: Tensor, shift: Tensor) -> Tensor:
        r"""Nats charged for the maps, given what they said of the training contexts.

        Besides L1 and L2 it is :math:`\sum_{kj} (1 - \sigma(\ell_{kj})) \psi_{kj}^2`: where a mechanism is not touched its
        shift meets no data, and of two features that come together in every drug that touches it, the one that also comes
        where it is untouched must not take a share of the effect.
        """
        idle = ((1 - torch.sigmoid(logits.detach())) * shift**2).sum()
        effect = torch.where(self.pruned, 0.0, self.effect_penalty) * self.effect.abs().sum()
        weak = (self.log_ec50**2).sum() + self.log_ec50_0**2
        return idle + effect + self.logit_penalty * self.logit.abs().sum() + weak

    @torch.no_grad()
    def prune(self, share: float = 0.3) -> None:
        """Drop effects below a share of the gene's largest, and stop shrinking the others."""
        size = self.effect.abs()
        self.kept.copy_(size >= share * size.amax(0))
        self.pruned.fill_(True)


class IdentityGenerator(HillGenerator):
    """The same maps on the drug's identity: every drug has its own targets, shared over its doses.

    It knows nothing of drugs that were not measured.
    """

    pools_drugs = False

    def __init__(self, n_features: int, n_genes: int, *, n_drugs: int, dosed: bool) -> None:
        super().__init__(n_drugs, n_genes, n_drugs=n_drugs, dosed=dosed, effect_penalty=0.0, logit_penalty=0.0)

    def encode(self, features: Tensor, drug: Tensor) -> Tensor:
        """One-hot identity; a drug that was not measured has none."""
        return (drug[:, None] == torch.arange(self.n_drugs, device=drug.device)).to(features.dtype)

    def penalty(self, logits: Tensor, shift: Tensor) -> Tensor:
        """As the class above, but smooth in the logits: nothing is to be selected, and at a kink rounding decides."""
        return super().penalty(logits, shift) + 1e-3 * (self.logit**2).sum()

    def prune(self, share: float = 0.3) -> None:
        """Keep every effect: nothing is shared between drugs, so none stands in for another."""


GENERATORS = {"hill": HillGenerator, "identity": IdentityGenerator}
