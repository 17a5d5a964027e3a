"""What values of a declared scale look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

Scale = Literal["counts", "lognorm", "continuous"]
LOGNORM_MAX = 20.0  # e^20 transcripts of one gene in one cell do not exist


class Seen(Protocol):
    """What a scan over all values saw: the range of every gene, how many values, how many of them odd, and some that are."""

    low: np.ndarray
    high: np.ndarray
    entries: int
    fractional: int
    negative: int
    examples: list[float]


def complaint(seen: Seen, scale: Scale) -> tuple[str, str] | None:
    """Why values are not of this scale, and what to do about it; sentences without their full stop."""
    if scale == "counts" and seen.negative:
        return (
            f"{seen.negative:,} values are negative (smallest {seen.low.min():.4g})",
            "Set scale='continuous', or point layer= to the counts",
        )
    if scale == "counts" and seen.fractional:
        shown = ", ".join(f"{value:.4g}" for value in seen.examples)
        share = 100 * seen.fractional / seen.entries
        return (
            f"{share:.3g} % of the values are not integers (e.g. {shown})",
            "Set scale='lognorm' if they are log-normalised, or point layer= to the counts",
        )
    if scale != "lognorm":
        return None
    high = seen.high.max()
    elsewhere = ", or point layer= to log-normalised values"
    if seen.negative:
        return (
            f"{seen.negative:,} values are negative (smallest {seen.low.min():.4g}), which looks scaled",
            "Set scale='continuous'" + elsewhere,
        )
    if not seen.fractional and high > 0:
        return "all values are integers, which looks like counts", "Set scale='counts'" + elsewhere
    if high > LOGNORM_MAX:
        return f"the largest value is {high:.4g}", "Take the logarithm first: sc.pp.log1p(adata)" + elsewhere
    return None
