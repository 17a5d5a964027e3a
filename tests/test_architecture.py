"""The layout that docs/contributing.md describes: folders, sizes, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import scgim

SOURCE = Path(scgim.__file__).parent
ROOT = Path(__file__).parents[1]
MOST_LINES, LARGEST_FOLDER, MEDIAN_FUNCTION = 350, 0.16, 8


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_long_but_the_one_that_numba_caches():
    long = {path.name for path in SOURCE.rglob("*.py") if lines(path) > MOST_LINES}
    assert long <= {"kernels.py"}


def test_no_benchmark_is_long():
    assert max(lines(path) for path in (ROOT / "benchmarks").glob("*.py")) <= 400


def test_no_folder_holds_much_of_the_code():
    size = Counter()
    for path in SOURCE.rglob("*.py"):
        size[path.relative_to(SOURCE).parts[0]] += lines(path)
    assert max(size.values()) <= LARGEST_FOLDER * sum(size.values())


def test_functions_are_short():
    sizes = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                sizes.append(body[-1].end_lineno - body[0].lineno + 1 if body else 0)
    assert median(sizes) <= MEDIAN_FUNCTION


def test_no_import_runs_upwards():
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    found = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "0 broken" in found.stdout
