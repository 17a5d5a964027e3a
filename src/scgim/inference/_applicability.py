"""The applicability domain: the distance of a query from the measured conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._similarity import similarity

if TYPE_CHECKING:
    from scgim.data._design import ScreenDesign

    from ._query import Query

MIN_SIMILARITY = (
    0.4  # least similarity of an unseen drug at the edge of the domain; a convention, not calibrated on held-out drugs
)
MAX_DOUBLINGS = 1.0  # largest distance of a dose at the edge from the drug's doses, in doublings; a convention
GRADES = np.array(["in-domain", "edge", "extrapolation"])


def applicability(query: Query, design: ScreenDesign) -> pd.DataFrame:
    """Applicability of every row of the query: columns nearest_drug, similarity, dose_in_range and trust.

    ``trust`` is ``"in-domain"`` for a measured drug within the range of its doses. It is ``"edge"`` for an unseen drug with a similarity of
    at least 0.4, for a dose outside the range by a factor of up to 2, and for an unmeasured combination without a drug beyond these limits. All other
    rows are ``"extrapolation"``. The columns of a combination describe its least similar drug.
    """
    measured = query.index >= 0
    best, value = _nearest(query, design)
    distance = np.zeros(len(best))
    if design.dosed:
        low, high = np.array([(d.min(), d.max()) for d in map(design.doses_of, query.part)]).T
        with np.errstate(divide="ignore"):
            distance = np.maximum(np.log2(low / query.part_dose), np.log2(query.part_dose / high)).clip(min=0)
    near = measured | (value >= MIN_SIMILARITY)
    grade = np.where(measured & (distance == 0), 0, np.where(near & (distance <= MAX_DOUBLINGS), 1, 2))
    start = np.searchsorted(query.row, np.arange(len(query.drug)))
    combined = query.combined & ~np.isin(query.treatments.astype(str), design.treatments)
    grade = np.maximum(np.maximum.reduceat(grade, start), combined)
    worst = np.array([a + value[a:b].argmin() for a, b in zip(start, [*start[1:], len(value)], strict=True)])
    return pd.DataFrame(
        {
            "nearest_drug": np.where(value[worst] > 0, design.drugs[best[worst]], ""),
            "similarity": value[worst],
            "dose_in_range": np.maximum.reduceat(distance, start) == 0,
            "trust": GRADES[grade],
        }
    )


def _nearest(query: Query, design: ScreenDesign) -> tuple[np.ndarray, np.ndarray]:
    """The most similar training drug of every part of a query (the drug itself if it was measured), and the similarity."""
    alike = np.zeros((len(query.index), len(design.drugs)))
    if query.features.shape[1]:
        alike[np.ix_(query.featured, design.featured)] = similarity(
            query.features[query.featured], design.features[design.featured]
        )
    measured = query.index >= 0
    alike[measured, query.index[measured]] = 1.0
    best = np.where(measured, query.index, alike.argmax(1))
    return best, alike[np.arange(len(best)), best]
