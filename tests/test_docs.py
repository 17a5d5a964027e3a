"""The API page names every public function, class and method, and nothing else."""

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
def test_every_public_name_is_listed(namespace):
    names = {f"{namespace}.{name}" for name in getattr(scgim, namespace).__all__}
    assert names
    assert names <= LISTED


def test_every_verb_of_the_model_is_listed():
    own = {
        name
        for name in dir(scgim.GIM)
        if not name.startswith("_") and _is_ours(inspect.getattr_static(scgim.GIM, name))
    }
    assert {"train", "drugs"} <= own
    assert {f"GIM.{name}" for name in own} <= LISTED


def _is_ours(member):
    member = getattr(member, "fget", None) or getattr(member, "__func__", member)
    module = getattr(member, "__module__", "")
    return module.startswith("scgim") and not module.endswith("_scvi_verbs_mixin")


@pytest.mark.parametrize("path", sorted(LISTED))
def test_what_is_listed_exists_and_is_documented(path):
    assert len(inspect.getdoc(resolve(path))) > 40
