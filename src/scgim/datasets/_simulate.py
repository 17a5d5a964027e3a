"""Simulated drug screens with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._screen import draw_screen
from ._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from ._chemistry import Chemistry
    from ._graphs import Graph
    from ._mechanisms import Mechanism
    from ._model import Intervention
    from ._observe import Observation


def simulate_screen(
    *,
    n_genes: int = 20,
    n_drugs: int = 40,
    n_cells: int | tuple[int, int] = 50,
    n_control: int = 800,
    doses: Sequence[float] = (0.5, 1, 1.5, 2),
    graph: Graph = "er",
    degree: float = 2,
    mechanism: Mechanism = "linear",
    intervention: Intervention = "shift",
    observation: Observation = "continuous",
    chemistry: Chemistry = "motifs",
    n_bits: int = 32,
    n_new_drugs: int = 20,
    new_doses: Sequence[float] | None = None,
    frac_dead: float = 0.0,
    depth: float = 3.0,
    seed: int = 0,
) -> AnnData:
    r"""Simulate a drug screen with known graph, targets and dose responses, and with the truth for unseen doses and drugs.

    Cells follow a structural causal model over genes,

    .. math:: x_j = f_j(x_{pa(j)}) + \psi_{kj} + \sigma_j \varepsilon_j, \qquad \psi_{kj} = E_{kj} \, c / (c + k_{kj}).

    :math:`x_j` is the expression of gene :math:`j`, :math:`f_j` its mechanism with the parents :math:`pa(j)`, and
    :math:`\sigma_j \varepsilon_j` its noise. The drug of condition :math:`k` shifts its targets by :math:`\psi_{kj}`, a Hill function of
    the dose :math:`c` with the maximal effect :math:`E_{kj}` and the EC50 :math:`k_{kj}`. Each gene is standardized before its children
    read it (iSCM, Ormaniec et al. 2025). A cell without drug has mean 0 and SD 1 in every gene. So neither variances nor explained
    variance nor gene names reveal the topological order. The default numbers of drugs, doses and
    cells are those of the synthetic experiments in the GIM paper; 20 genes and all else are this simulator's choice.

    Parameters
    ----------
    n_genes, n_drugs, n_control
        Numbers of genes, of training drugs and of control cells.
    n_cells
        Cells per drug and dose, or a range ``(low, high)`` from which each condition draws its own number.
    doses
        Doses of every drug, in uM.
    graph, degree
        ``"er"`` (every edge equally likely) or ``"sf"`` (scale-free), with about ``degree * n_genes`` edges, at most those of the
        complete DAG.
    mechanism
        ``"linear"``: weighted sums; ``"network"``: a random tanh network for each gene, clearly not linear.
    intervention
        ``"shift"`` adds :math:`\psi` to a target. ``"hard"`` replaces the effect of its parents by :math:`\psi`.
    observation
        ``"continuous"``: each gene times a random scale plus a random location. ``"counts"``: gamma-Poisson UMI counts
        with log-normal size factors, rates exponential in the state.
    chemistry
        ``"motifs"``: drugs are sets of one to three motifs, which are their features. Each motif shifts one or two genes by 2 to 4
        control SD. ``"sciplex"``: drugs are compounds of `sciplex3_drugs`, and hidden common substructures are their motifs.
    n_bits
        Number of motifs; for ``"sciplex"`` the largest number of hidden substructures.
    n_new_drugs, new_doses
        Unseen conditions in the truth: number of unseen drugs (at ``doses``), and unseen doses (of the training drugs).
        ``new_doses=None``: midpoints of neighboring doses (and zero), and half a step beyond the last dose.
    frac_dead
        Share of drugs without any effect, rounded down. ``"motifs"``: their motifs have no effect in any drug. ``"sciplex"``: drawn at
        random, so that the structure does not reveal it.
    depth
        Mean UMI count per gene of a control cell, if ``observation="counts"``.
    seed
        Seed. Graph, mechanisms, chemistry and cells have random streams of their own: more cells do not change the graph.

    Returns
    -------
    AnnData
        Cells x genes, in random order.

        - ``.X``: float32 array, or CSR float32 of whole numbers for counts
        - ``.obs``: ``drug`` (the control is ``"DMSO"``); ``dose`` (float64, NaN for controls); for ``"sciplex"``
          ``smiles`` (empty for controls); for counts ``n_counts``, the UMIs of the cell, those outside the panel included
        - ``.varp["true_graph"]``: CSR 0/1, row = source, column = target; if the mechanisms are linear also
          ``.varp["true_weight"]``, change of target per unit of source, in control SD
        - ``.uns["drug_features"]``: DataFrame, training drugs x motifs (``"motifs"`` only)
        - ``.uns["truth"]``: arrays. ``drugs``, ``new_drugs``, ``doses``, ``dead``; drugs x genes: ``targets`` (0/1),
          ``effect`` (:math:`E`, control SD), ``ec50`` (uM, infinite off target); drugs x motifs: ``motifs``; for
          each gene ``control_mean`` and ``control_sd``, on the scale that ``uns["about"]["mean_scale"]`` names; and the
          tables ``unseen_dose`` and ``unseen_drug`` with one row per condition: ``drug``, ``dose``, ``features``
          (motifs), ``targets``, ``shift`` (:math:`\psi`), ``change`` (mean change after propagation through the
          graph; both in control SD of the true state), ``mean`` (of 2,000 cells or more, on ``mean_scale``), for
          ``"sciplex"`` ``smiles``
        - ``.uns["about"]``: every setting, and ``varsortability`` and ``r2_sortability`` of control cells (0.5: no
          information about the order)

    Raises
    ------
    ValueError
        If an argument is invalid.
    RuntimeError
        If the simulated truth is inconsistent: cycles, edges without effect, targets without shift, changes of genes that no
        intervention reaches, variances that reveal the order.

    References
    ----------
    Ormaniec et al., Standardizing structural causal models, ICLR 2025.

    Examples
    --------
    >>> import scgim
    >>> adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=8, n_cells=5, n_control=40, n_new_drugs=2, degree=1)
    >>> adata.shape
    (200, 6)
    >>> adata.varp["true_graph"].shape
    (6, 6)
    >>> truth = adata.uns["truth"]["unseen_drug"]
    >>> truth["mean"].shape  # 2 drugs x 4 doses
    (8, 6)
    """
    settings = Settings.check(
        n_genes=n_genes,
        n_drugs=n_drugs,
        n_cells=n_cells,
        n_control=n_control,
        doses=doses,
        graph=graph,
        degree=degree,
        mechanism=mechanism,
        intervention=intervention,
        observation=observation,
        chemistry=chemistry,
        n_bits=n_bits,
        n_new_drugs=n_new_drugs,
        new_doses=new_doses,
        frac_dead=frac_dead,
        depth=depth,
        seed=seed,
    )
    return draw_screen(settings)
