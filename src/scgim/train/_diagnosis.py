"""Suspects of a loss that is not finite."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from scgim.data._training_data import TrainingData

    from ._options import TrainingOptions

LARGE = 1e4  # control SD; a larger mean change is a suspect


def suspects(data: TrainingData, options: TrainingOptions) -> str:
    """The usual causes, the most likely first: enlarged steps and penalties, then the largest mean change, in one clause."""
    found = [
        f"plan_kwargs {field.name}={value!r} (default {field.default!r})"
        for field in fields(options)
        if isinstance(value := getattr(options, field.name), float) and (field.default is None or value > field.default)
    ]
    summary, conditions = data.summary, data.conditions
    change = (conditions.mean - data.controls.mean).abs()
    row, column = divmod(int(torch.nan_to_num(change, nan=torch.inf).argmax()), change.shape[1])
    design, gene = summary.design, summary.genes[column]
    dose = "" if design.dose[row] != design.dose[row] else f" at dose {design.dose[row]:g}"
    largest = float(change[row, column])
    which = f"gene {str(gene)!r} under {str(design.treatments[design.drug[row]])!r}{dose}"
    if not found or not largest < LARGE:
        found.append(f"the largest mean change, {largest:.3g} control SD, {which}")
    return "; ".join(found)
