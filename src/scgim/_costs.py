"""Seconds and memory of set-up, training and prediction, estimated from the size of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CONTROLS = 10_000  # most stored control cells per line, for predictions without the training data

Phase = Literal["set-up", "training on cells", "training on means", "prediction on cells", "prediction on means"]


class ScreenSize(NamedTuple):
    """Size of a screen: numbers of cells, genes (panel), conditions, stored control cells and readout genes."""

    cells: int
    genes: int
    conditions: int
    controls: int
    readout: int = 0


class Cost(NamedTuple):
    """Processor seconds, and bytes beside the cells and libraries."""

    seconds: float
    bytes: float


# What grows with a screen. Blocks of cells are bounded as in `scgim.data._matrix`.
TERMS: dict[str, Callable[[ScreenSize], float]] = {
    "constant": lambda size: 1.0,
    "cells": lambda size: size.cells,
    "block": lambda size: min(size.cells * (size.genes + size.readout), 2**14 * (size.genes + size.readout), 2**23),
    "cells x genes": lambda size: size.cells * size.genes,
    "cells x genes^2": lambda size: size.cells * size.genes**2,
    "genes^2": lambda size: size.genes**2,
    "conditions": lambda size: size.conditions,
    "conditions x genes": lambda size: size.conditions * size.genes,
    "conditions^2": lambda size: size.conditions**2,
    "controls x genes": lambda size: size.controls * size.genes,
    "cells x readout": lambda size: size.cells * size.readout,
    "cells x genes x readout": lambda size: size.cells * size.genes * size.readout,
    "genes x readout": lambda size: size.genes * size.readout,
    "conditions x readout": lambda size: size.conditions * size.readout,
}

# Constants of the terms: processor seconds, and bytes. `python benchmarks/resources.py` measures screens of simulated cells (linear
# mechanisms, shifts, all defaults, one thread) and `python benchmarks/resources.py --fit` prints these constants, fitted in log
# ratios. Phases on means are those of counts, which mostly choose the kernel, with its matrices of conditions x conditions. Seconds of
# training on means are not fitted: they rest on one screen of 496 genes and 2,256 conditions (347 s). Those of readout genes are fits to
# benchmarks/readout_cost.csv.
SECONDS: dict[Phase, dict[str, float]] = {
    "set-up": {
        "constant": 0.076,
        "cells": 1.4e-06,
        "cells x genes": 6.5e-10,
    },
    "training on cells": {
        "constant": 4.1,
        "conditions x genes": 0.00011,
        "genes^2": 1.1e-05,
        "cells x genes": 1.1e-09,
        "cells x genes^2": 1e-11,
        "conditions^2": 1.9e-06,
        "cells x readout": 2e-08,
        "cells x genes x readout": 5e-11,
        "conditions x readout": 1e-05,
    },
    "training on means": {
        "constant": 8,
        "conditions x genes": 0.0003,
        "genes^2": 7e-06,
        "cells x genes": 1e-08,
        "cells x genes^2": 3e-11,
        "conditions^2": 0,
        "cells x readout": 2e-08,
        "cells x genes x readout": 5e-11,
        "conditions x readout": 1e-05,
    },
    "prediction on cells": {
        "constant": 0.058,
        "conditions": 0.00016,
        "conditions x genes": 0,
        "genes^2": 5.1e-08,
    },
    "prediction on means": {
        "constant": 0.074,
        "conditions": 0,
        "conditions x genes": 2.2e-08,
        "conditions^2": 3.5e-07,
    },
}
BYTES: dict[Phase, dict[str, float]] = {
    "set-up": {
        "constant": 3.6e06,
        "block": 0,
        "cells": 90,
    },
    "training on cells": {
        "constant": 3.3e06,
        "cells": 0,
        "block": 4,
        "genes^2": 190,
        "conditions x genes": 330,
        "conditions^2": 36,
        "controls x genes": 17,
        "genes x readout": 16,
        "conditions x readout": 64,
    },
    "training on means": {
        "constant": 0,
        "cells": 230,
        "block": 4,
        "genes^2": 210,
        "conditions x genes": 210,
        "conditions^2": 66,
        "controls x genes": 0,
        "genes x readout": 16,
        "conditions x readout": 64,
    },
    "prediction on cells": {
        "constant": 3.7e06,
        "conditions x genes": 8,
        "controls x genes": 0,
        "genes^2": 0,
    },
    "prediction on means": {
        "constant": 2.7e06,
        "conditions x genes": 8,
        "conditions^2": 34,
    },
}


def cost(phase: Phase, size: ScreenSize) -> Cost:
    """Estimated cost of a phase; predictions are means of all conditions. Within a factor of 2 where it was measured."""
    seconds, n_bytes = (
        sum(constant * TERMS[term](size) for term, constant in table[phase].items()) for table in (SECONDS, BYTES)
    )
    return Cost(seconds, n_bytes)
