"""Joint descent of graph, mechanisms and generator on the exact likelihood."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from scgim._checks import check_option
from scgim.structure.candidates import check_priors
from scgim.structure.dag import ancestors, order
from scgim.structure.search import SearchState

from .acyclicity import break_cycles
from .relaxations import RELAXATIONS
from .residuals import Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.statistics import SufficientStatistics

    from .relaxations import Relaxation

_BETAS = (0.9, 0.99)
# Shares of the steps: teacher forcing of clear targets at the start, and fixed graphs at the end.
_FORCED, _SETTLED = 0.3, 0.25
_GRAPHS, _VALUES = 8, 200_000  # most graphs side by side, and most conditions x genes of all graphs in a step
_CHEAPEST = 0.05  # least price of a likely edge, as a share of the price of an edge
_LEAST = 0.25  # least gain of a candidate edge, as a share of its price
_DECAY = 1e-3  # nats per squared weight


def descend_dag(
    statistics: SufficientStatistics,
    likelihood: nn.Module,
    *,
    columns: int = 1,
    orientation: Literal["smooth", "gumbel"] = "smooth",
    penalty: float | None = None,
    allowed: np.ndarray | None = None,
    required: np.ndarray | None = None,
    edge_log_odds: np.ndarray | None = None,
    max_rounds: int = 100,
    patience: int = 8,
    steps: int = 150,
    lr: float = 0.03,
    graphs: int | None = None,
    seed: int = 0,
    start: np.ndarray | None = None,
    resume: dict[str, Any] | None = None,
) -> Iterator[SearchState]:
    r"""Learn a DAG, mechanisms linear in their basis functions, noise and a generator jointly by gradient descent.

    The maximum a posteriori estimate minimizes, over gates :math:`A`, weights :math:`w`, noise :math:`\sigma` and the parameters
    :math:`\phi` of the generator,

    .. math:: -\log p(D \mid A \odot w, \sigma, \phi) + c \sum_{ij} \left(1 - e^{-\sqrt{s_{ij} / c}}\right) + \text{penalties}

    The likelihood of the data :math:`D` is exact: unknown targets are summed out. :math:`s_{ij}` is the log-likelihood (nats) that
    an edge gains, and :math:`c` is the price of an edge, as in the score of the search. A weak edge pays part of the price only. A
    gate between 0 and 1 is the probability that the edge exists. The expected squared residual includes the variance of this
    uncertainty, so that uncertain edges cannot compensate for it by larger weights.

    First, every gene is fitted on all others, without orientation. Pairs that gain a quarter of the price in either direction are
    candidates. Then follow rounds of descent. A round starts several graphs near the best graph so far, relaxes them
    (:data:`~scgim.structure.gradient.RELAXATIONS`) and cools them. The acyclic graphs at the end are fitted, and the best one is
    kept if it improves on the best so far. A single descent ends near its start, so several rounds are needed.

    Parameters
    ----------
    statistics
        Statistics of ``genes * columns`` columns on the standardized scale; condition 0 holds the controls. Hard interventions
        need ``own``, the scatter of every condition.
    likelihood
        ``likelihood(mean, within, pooled, forced)`` returns minus the log-likelihood, the penalty and the noise variance ``(genes,)``
        of one graph from its :class:`~scgim.structure.gradient.Residuals`. ``forced``: teacher forcing, targets that the residuals
        clearly show are given. The attribute ``rates`` maps learned parameters to their step sizes. The module is not changed.
    columns, penalty, allowed, required, edge_log_odds, seed
        The arguments of :func:`~scgim.structure.search_dag`.
    orientation
        Key of :data:`~scgim.structure.gradient.RELAXATIONS`.
    max_rounds, patience
        Largest number of rounds, and number of consecutive rounds gaining less than a nat each that ends the descent.
    steps, lr
        Number of gradient steps per round, and step size of the weights.
    graphs
        Number of graphs relaxed side by side in a round; by default up to 8, fewer on large screens.
    start
        Acyclic graph whose topological order is the start.
    resume
        ``progress`` of a state of the same descent. The descent continues after this state.

    Yields
    ------
    :class:`~scgim.structure.SearchState` after every round: the best graph so far. The caller may stop at any time.

    Raises
    ------
    ValueError
        If ``orientation`` does not exist, the required edges have a cycle, or a required edge is not allowed.
    """
    check_option("orientation", orientation, RELAXATIONS)
    relaxation = RELAXATIONS[orientation]
    data = Columns(statistics, columns, next(likelihood.parameters()).device)
    d = len(data.square)
    allowed, required = check_priors(d, allowed, required)
    penalty = (2.0 if columns == 1 else 0.7) if penalty is None else penalty
    price = penalty * columns * 0.5 * math.log(max(data.cells, 2.0))
    allowed &= ~ancestors(required).T  # an edge against a required path would close a cycle
    weight, near = preselect(data, allowed, price)
    prices = np.full((d, d), price)
    if edge_log_odds is not None:
        near |= edge_log_odds > 0
        prices = np.maximum(price - edge_log_odds, _CHEAPEST * price)
    descent = _Descent(data, likelihood, weight, near & allowed, required, prices)
    many = max(1, min(_GRAPHS, _VALUES // max(1, d * len(statistics.n)))) if graphs is None else graphs
    place = np.zeros(d) if start is None or not np.any(start) else np.argsort(order(start)).astype(float)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    least, most = relaxation.kick[0], max(relaxation.kick[0], relaxation.kick[1] * d)
    stagnant, done = 0, -1
    if resume is not None:
        rng.bit_generator.state, place = resume["rng"], np.asarray(resume["place"])
        generator.set_state(resume["generator"])
        descent.loss, descent.graph = resume["loss"], resume["graph"].numpy()
        descent.best = _Fits({name: a.to(data.device) for name, a in resume["best"].items()})
        stagnant, done = resume["stagnant"], resume["rounds"]
    for rounds in range(done + 1, max_rounds + 1):
        if rounds and (stagnant >= patience or not descent.allowed.any()):
            return
        before = descent.loss
        far = np.exp(rng.uniform(np.log(least), np.log(most), size=(many, 1))) if rounds else 0.3
        places = torch.as_tensor(place + far * rng.normal(size=(many, d)), device=data.device)
        relaxed = relaxation(places, descent.allowed, descent.required, generator)
        descent.round(relaxed, steps, lr)
        place = np.argsort(order(descent.graph)).astype(float)
        stagnant = 0 if descent.loss < before - 1 else stagnant + 1
        progress = {"stagnant": stagnant, "rounds": rounds, "loss": descent.loss, "place": place.tolist()}
        progress |= {"rng": rng.bit_generator.state, "generator": generator.get_state()}
        progress |= {"graph": torch.as_tensor(descent.graph.copy()), "best": dict(descent.best)}
        yield SearchState(descent.graph.copy(), descent.loss, rounds, progress)


def preselect(
    data: Columns, allowed: np.ndarray, price: float, *, steps: int = 200, lr: float = 0.03
) -> tuple[Tensor, np.ndarray]:
    """Fit every gene on all others within conditions; cycles are permitted. No shift can bias these fits.

    Returns
    -------
    The weights, ``(genes, columns, genes)``, and the candidate pairs, ``(genes, genes)`` bool: pairs that gain a quarter of the
    price in either direction.
    """
    d, b, cells = len(allowed), data.columns, data.cells
    mask = torch.as_tensor(allowed, device=data.device).repeat_interleave(b, 0)
    weight = torch.zeros(d * b, d, dtype=torch.float64, device=data.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight], betas=_BETAS)
    nats = weight.new_zeros(d, d)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        w = weight * mask
        rss = data.square - 2 * (data.cross.T * w).sum(0) + (w * (data.scatter @ w)).sum(0)
        rss = rss.clamp(min=1e-6 * cells)  # fewer cells than genes can be fitted without a residual
        nats = cells**2 * (w.view(d, b, d) ** 2).sum(1) / (2 * rss.detach())
        loss = 0.5 * cells * torch.log(rss).sum() + _paid(nats, price).sum()
        (weight.grad,) = torch.autograd.grad(loss, [weight])
        optimizer.step()
    strong = (nats > _LEAST * price).cpu().numpy()
    return (weight.detach() * mask).view(d, b, d), strong | strong.T


def _paid(nats: Tensor, price: Tensor | float) -> Tensor:
    """Price of an edge that gains ``nats``: the full price for strong edges, part of it for weak edges."""
    return price * (1 - torch.exp(-torch.sqrt(nats / price + 1e-12)))


class _Fits(dict):
    """Parameters by name, with or without a leading axis of graphs."""

    def spread(self, many: int) -> _Fits:
        """Copies along a new axis of ``many`` graphs, with gradients."""
        return _Fits({name: a.expand(many, *a.shape).clone().requires_grad_() for name, a in self.items()})

    def take(self, k: int) -> _Fits:
        """Parameters of graph ``k``."""
        return _Fits({name: a[k].detach().clone() for name, a in self.items()})


class _Descent:
    """The best graph so far and its parameters, on the candidate edges."""

    def __init__(
        self,
        data: Columns,
        likelihood: nn.Module,
        weight: Tensor,
        allowed: np.ndarray,
        required: np.ndarray,
        prices: np.ndarray,
    ) -> None:
        self.data, self.likelihood = data, likelihood
        d, device = len(allowed), data.device
        self.allowed = torch.as_tensor(allowed | required, device=device)
        self.required = torch.as_tensor(required, device=device)
        # Candidate parents of each gene lie side by side, padded to the largest number: all genes are then computed in one batch.
        most = max(1, int(self.allowed.sum(0).max()))
        self.parents = torch.sort(self.allowed.byte(), dim=0, descending=True, stable=True).indices[:most].T
        self.gene = torch.arange(d, device=device)[:, None]
        self.exists = self.allowed[self.parents, self.gene]
        self.price = torch.as_tensor(prices, device=device)[self.parents, self.gene]
        data.gather(self.parents)
        self.blanket = weight[self.parents, :, self.gene] * self.exists[:, :, None]
        named = dict(likelihood.named_parameters())
        learned = {name: named[name].detach().clone() for name in likelihood.rates}
        self.best = _Fits(learned, weight=self.blanket, bias=torch.zeros(d, dtype=torch.float64, device=device))
        self.loss, self.graph = math.inf, required.copy()

    def round(self, relaxed: Relaxation, steps: int, lr: float) -> None:
        """Cool relaxed graphs, fit the acyclic graphs at the end, and keep the best if it improves on the best so far."""
        # An edge outside the best graph starts from the fit without orientation: from weight 0 it would have no gradient on its gate.
        on = torch.as_tensor(self.graph, device=self.data.device)[self.parents, self.gene, None]
        fits = _Fits(self.best, weight=torch.where(on, self.best["weight"], self.blanket)).spread(
            len(relaxed.parameter)
        )
        rates = {"weight": lr, "bias": lr, **self.likelihood.rates}
        groups = [{"params": [a], "lr": rates[name]} for name, a in fits.items()]
        learned = [*fits.values(), relaxed.parameter]
        optimizer = torch.optim.Adam([*groups, {"params": [relaxed.parameter], "lr": relaxed.rate}], betas=_BETAS)
        cooling, gates = max(1, round((1 - _SETTLED) * steps)), None
        for step in range(steps):
            if step < cooling:
                loss = (
                    self.value(relaxed.gates(step / cooling), fits, forced=step < _FORCED * cooling)[0]
                    + relaxed.cycles()
                )
            else:
                for group, name in zip(optimizer.param_groups, fits, strict=False):
                    group["lr"] = rates[name] * (steps - step) / (steps - cooling)
                gates = self.acyclic(relaxed.hard().double(), fits) if gates is None else gates
                loss, _ = self.value(gates, fits)
            for p, gradient in zip(learned, torch.autograd.grad(loss.sum(), learned, allow_unused=True), strict=True):
                p.grad = gradient
            optimizer.step()
        self.keep(self.acyclic(relaxed.hard().double() if gates is None else gates, fits), fits)

    def value(self, gates: Tensor, fits: _Fits, *, forced: bool = False) -> tuple[Tensor, Tensor]:
        """Objective, ``(graphs,)``, and nats that every candidate edge gains, ``(graphs, genes, most parents)``."""
        gate = gates[:, self.parents, self.gene] * self.exists
        weight, square = fits["weight"] * gate[..., None], (fits["weight"] ** 2).sum(-1)
        residuals = self.data.residuals(weight.flatten(2), fits["bias"], (gate * (1 - gate) * square).sum(-1))
        parameters = {name: fits[name] for name in self.likelihood.rates}
        call = lambda own, *seen: functional_call(self.likelihood, own, (*seen, forced))
        loss, penalty, variance = vmap(call)(parameters, *residuals)
        nats = self.data.cells * (weight**2).sum(-1) / (2 * variance.detach()[..., None])
        paid = _paid(nats, self.price) * ~self.required[self.parents, self.gene]
        return loss + penalty + (paid + _DECAY * square).sum((1, 2)), nats

    @torch.no_grad()
    def acyclic(self, gates: Tensor, fits: _Fits) -> Tensor:
        """The strongest edges that gain more than their price and close no cycle; ``(graphs, genes, genes)`` of 0 and 1."""
        _, nats = self.value(gates, fits)
        gained = gates.new_zeros(gates.shape)
        gained[:, self.parents, self.gene] = torch.where(self.exists & (nats > self.price), nats, 0.0)
        required = self.required.cpu().numpy()
        graphs = np.array([break_cycles(each, required) for each in gained.cpu().numpy()])
        return torch.as_tensor(graphs, device=gates.device).double()

    @torch.no_grad()
    def keep(self, gates: Tensor, fits: _Fits) -> None:
        """Keep the best of the graphs if it improves on the best so far."""
        loss = torch.nan_to_num(self.value(gates, fits)[0], nan=math.inf)
        k = int(loss.argmin())
        if loss[k] < self.loss:
            self.loss, self.graph, self.best = loss[k].item(), gates[k].cpu().numpy() > 0, fits.take(k)
