from __future__ import annotations

import numpy as np
import pytest

from scgim.datasets import simulate_screen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"n_genes": 1}, "n_genes=1 must be an integer of at least 2", id="one gene"),
        pytest.param({"n_genes": 20.0}, "n_genes=20.0 must be an integer", id="float genes"),
        pytest.param({"n_genes": True}, "n_genes=True", id="bool genes"),
        pytest.param({"n_genes": "20"}, "n_genes='20'", id="string genes"),
        pytest.param({"degree": 20}, r"degree=20 must be a number in \[0, 20\)", id="degree too large"),
        pytest.param({"n_genes": 3, "degree": 3}, r"degree=3 must be a number in \[0, 3\)", id="degree of all genes"),
        pytest.param({"degree": -1}, "degree=-1", id="negative degree"),
        pytest.param({"degree": np.nan}, "degree=nan", id="nan degree"),
        pytest.param({"n_drugs": 0}, "n_drugs=0 must be an integer of at least 1", id="no drugs"),
        pytest.param({"n_new_drugs": -1}, "n_new_drugs=-1", id="negative new drugs"),
        pytest.param({"n_bits": 0}, "n_bits=0", id="no motifs"),
        pytest.param({"n_control": 1}, "n_control=1 must be an integer of at least 2", id="one control"),
        pytest.param({"n_cells": 0}, "n_cells=0 must be an integer of at least 1", id="no cells"),
        pytest.param({"n_cells": -5}, "n_cells=-5", id="negative cells"),
        pytest.param({"n_cells": (0, 5)}, "n_cells=0", id="range from 0"),
        pytest.param({"n_cells": (9, 5)}, r"did you mean \(5, 9\)", id="range upside down"),
        pytest.param(
            {"n_cells": (1, 2, 3)}, r"n_cells=\(1, 2, 3\) must be a positive integer, or a pair", id="three cells"
        ),
        pytest.param({"n_cells": 2.5}, "n_cells=2.5", id="float cells"),
        pytest.param({"doses": ()}, r"doses=\(\) must be a sequence", id="no doses"),
        pytest.param({"doses": (1, -2)}, "doses contains -2: a dose must be positive", id="negative dose"),
        pytest.param({"doses": (0, 1)}, "doses contains 0: a dose must be positive", id="zero dose"),
        pytest.param({"doses": (1, np.inf)}, "doses contains inf", id="infinite dose"),
        pytest.param({"doses": (1, np.nan)}, "doses contains nan", id="nan dose"),
        pytest.param({"doses": (1, 2, 1)}, "doses contains 1 more than once", id="dose twice"),
        pytest.param({"doses": "low"}, "doses='low' must be a sequence", id="string dose"),
        pytest.param({"doses": None}, "doses contains nan", id="None as doses"),
        pytest.param({"new_doses": [1]}, "new_doses contains 1, which is in doses too", id="seen dose as new"),
        pytest.param({"new_doses": [-1]}, "new_doses contains -1", id="negative new dose"),
        pytest.param({"frac_dead": 1}, r"frac_dead=1 must be a number in \[0, 1\)", id="all dead"),
        pytest.param({"frac_dead": -0.1}, "frac_dead=-0.1", id="negative dead"),
        pytest.param({"depth": 0}, r"depth=0 must be a number in \(0, inf\)", id="no depth"),
        pytest.param({"depth": np.inf}, "depth=inf", id="infinite depth"),
        pytest.param({"seed": -1}, "seed=-1", id="negative seed"),
        pytest.param({"seed": None}, "seed=None", id="no seed"),
        pytest.param({"graph": "ER"}, "graph='ER' does not exist. Did you mean 'er'", id="graph"),
        pytest.param(
            {"mechanism": "lineal"}, "mechanism='lineal' does not exist. Did you mean 'linear'", id="mechanism"
        ),
        pytest.param({"mechanism": "mlp"}, "There is: 'linear', 'network'", id="options"),
        pytest.param(
            {"intervention": "soft"}, "intervention='soft' does not exist.*There is: 'shift', 'hard'", id="intervention"
        ),
        pytest.param(
            {"observation": "count"}, "observation='count' does not exist. Did you mean 'counts'", id="observation"
        ),
        pytest.param({"chemistry": "sciplex3"}, "Did you mean 'sciplex'", id="chemistry"),
        pytest.param({"chemistry": None}, "chemistry=None does not exist", id="None as option"),
        pytest.param({"chemistry": ["motifs"]}, "does not exist", id="list as option"),
        pytest.param(
            {"chemistry": "sciplex", "n_drugs": 180},
            "are 200 compounds, but chemistry='sciplex' has 188",
            id="too many",
        ),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_screen(**arguments)


def test_options_are_keywords():
    with pytest.raises(TypeError):
        simulate_screen(20)
