"""The API page names every public function, and nothing else."""

import inspect
import re
from pathlib import Path

import pytest

import scgim

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
LISTED = set(re.findall(r"^   ([\w.]+)$", PAGE, flags=re.MULTILINE))
NAMESPACES = [name for name in scgim.__all__ if inspect.ismodule(getattr(scgim, name))]


def resolve(path):
    thing = scgim
    for part in path.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_function_is_listed(namespace):
    functions = {
        f"{namespace}.{name}"
        for name in getattr(scgim, namespace).__all__
        if inspect.isfunction(resolve(f"{namespace}.{name}"))
    }
    assert functions
    assert functions <= LISTED


@pytest.mark.parametrize("path", sorted(LISTED))
def test_what_is_listed_exists_and_is_documented(path):
    assert len(inspect.getdoc(resolve(path))) > 40
