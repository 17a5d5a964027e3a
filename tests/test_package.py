"""Promises of the package as a whole: what importing it costs, and that everything public explains itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scgim

HEAVY = {
    "anndata",
    "lightning",
    "matplotlib",
    "numba",
    "pandas",
    "rdkit",
    "scanpy",
    "scipy",
    "scvi",
    "sklearn",
    "torch",
}
NAMESPACES = [name for name in scgim.__all__ if inspect.ismodule(getattr(scgim, name))]
RECORDS = {"pp.StandardizedMolecule"}  # what a function returns; its docstring lists attributes
# Examples of the class and of its other verbs call the first two; the last is a former name.
WITHOUT_EXAMPLE = RECORDS | {"GIM.drugs", "GIM.train", "GIM.fitted"}


def python(code):
    """Run code in a new process in which warnings are errors, and return what it prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split()


def public():
    """Name and object of everything public, methods of the model included."""
    for namespace in NAMESPACES:
        module = getattr(scgim, namespace)
        for name in module.__all__:
            yield f"{namespace}.{name}", getattr(module, name)
    yield "GIM", scgim.GIM
    for name, member in inspect.getmembers(scgim.GIM):
        if not name.startswith("_") and _ours(member):
            yield f"GIM.{name}", member


def _ours(member):
    function = member.fget if isinstance(member, property) else member
    # verbs of scvi-tools' base class that only say what to do instead are no API of scgim
    module = getattr(function, "__module__", "")
    return module.startswith("scgim") and not module.endswith("_scvi_verbs_mixin") and callable(function)


PUBLIC = dict(public())


# ---- importing -------------------------------------------------------------------------------------------------------


def test_importing_is_quick_and_loads_nothing():
    code = """
import sys, time
start = time.perf_counter()
import scgim
print(time.perf_counter() - start, *{name.partition(".")[0] for name in sys.modules})
"""
    runs = [python(code) for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.3
    assert not HEAVY & set(runs[0][1:])


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        pytest.param("statistics structure metrics", {"anndata", "scvi", "torch", "scanpy", "rdkit"}, id="arrays"),
        pytest.param("pp tl get datasets", {"scvi", "torch", "lightning"}, id="AnnData"),
        pytest.param("pl", {"scvi", "torch", "lightning"}, id="plots"),
        pytest.param("module", {"scvi", "anndata"}, id="torch"),
    ],
)
def test_layers(modules, absent):
    loaded = python(
        f"import sys\nfor name in {modules.split()}: __import__(f'scgim.{{name}}')\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not absent & set(loaded)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 'scgim' has no attribute 'GMI'; it has GIM, "):
        scgim.GMI  # noqa: B018
    assert not hasattr(scgim, "pytest")


def test_dir_names_what_there_is():
    assert set(dir(scgim)) == {*scgim.__all__, "__version__"}
    for name in dir(scgim):
        assert getattr(scgim, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", scgim.__version__)
    assert scgim.setup_anndata.__func__ is scgim.GIM.setup_anndata.__func__


def test_type_hints_are_shipped():
    assert (Path(scgim.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_all_is_complete(namespace):
    """Public names of a namespace are what `__all__` says: nothing leaks in from its imports."""
    module = getattr(scgim, namespace)
    names = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert names - {"annotations"} == set(module.__all__)


# ---- docstrings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text
    assert len(text) > 40
    assert not re.findall(r"%\(\w+\)s|\{\w+\}s?(?=\s*$)|<[a-z_]+ placeholder>|\bTODO\b|\bFIXME\b", text)
    if name not in WITHOUT_EXAMPLE:
        assert "\nExamples\n--------\n" in text


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in RECORDS and callable(PUBLIC[name])])
def test_every_argument_is_described_and_annotated(name):
    text, signature = inspect.getdoc(PUBLIC[name]), inspect.signature(PUBLIC[name])
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    described = set(re.findall(r"^(\w[\w, ]*)$", section.group(1), flags=re.MULTILINE)) if section else set()
    described = {argument.strip() for line in described for argument in line.split(",")}
    for argument, parameter in signature.parameters.items():
        if argument in {"self", "registry", "kwargs"}:  # scvi-tools' own
            continue
        assert argument in described, f"{name}: {argument}"
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {argument}"
    assert described <= {*signature.parameters, "trainer_kwargs"}, f"{name} describes what it does not take"


def test_no_text_names_a_machine():
    for module in pkgutil.walk_packages(scgim.__path__, "scgim."):
        if module.name != "scgim.__main__":
            text = inspect.getsource(importlib.import_module(module.name))
            assert not re.findall(r"(?<!\w)/(?:home|root|tmp|work|Users)/", text), module.name
