"""One fit, in whatever environment runs this file: ``python child.py METHOD SETTINGS CELLS OUT LIMIT``.

METHOD names a module ``fit_METHOD`` beside this file with a function ``fit(cells, **settings)``, and if it likes ``warm_up()``;
SETTINGS is its keyword arguments as JSON, CELLS a ``.npz`` file. OUT receives what ``fit`` returns, seconds by the clock and of
the processor, and peak memory. After LIMIT seconds of the processor the system ends the process.
Needs numpy alone, because that is all that the rivals' environments have in common.
"""

from __future__ import annotations

import importlib
import json
import math
import resource
import sys
import time
from pathlib import Path

import numpy as np


def megabytes() -> float:
    """Most memory so far; on Linux not by getrusage, which counts what the parent had before this program replaced it."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor() -> float:
    """Seconds of the processor so far, those of ended child processes included."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def main(method: str, settings: str, cells: str, out: str, limit: str) -> None:
    began = time.perf_counter()
    with np.load(cells) as file:
        given = dict(file)
    driver = importlib.import_module(f"fit_{method}")
    getattr(driver, "warm_up", lambda: None)()
    ready, start, before = time.perf_counter(), processor(), megabytes()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(start + float(limit)), -1))
    found = driver.fit(given, **json.loads(settings))
    measured = {"seconds": processor() - start, "clock_seconds": time.perf_counter() - ready, "start_seconds": start}
    np.savez(out, **found, **measured, start_clock_seconds=ready - began, mb_before=before, mb_peak=megabytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
