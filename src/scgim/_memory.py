"""Available memory, and the refusal of arrays that do not fit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNLIMITED = 2**60  # version 1 of cgroups writes a number above this for "no limit"


def available_memory(root: Path = Path("/")) -> float:
    """Memory in bytes that this process can still allocate: the least of the limits of the machine, its control groups and the process.

    Infinite if the system does not report any limit. ``root`` is the folder that contains ``proc`` and ``sys``.
    """
    return max(0.0, min([*_of_machine(root), *_of_groups(root), *_of_process(root)], default=float("inf")))


def require_memory(needed: float, what: str, remedy: str) -> None:
    """Raise a MemoryError, before anything is allocated, if ``needed`` bytes are not available."""
    free = available_memory()
    if needed > free:
        raise MemoryError(f"{what} need {in_bytes(needed)} of memory and {in_bytes(free)} are available: {remedy}.")


def in_bytes(n: float) -> str:
    """Bytes as text with two digits.

    Examples
    --------
    >>> in_bytes(1.234e9), in_bytes(5.6e7), in_bytes(1.8e11)
    ('1.2 GB', '56 MB', '180 GB')
    """
    value, unit = (n / 1e9, "GB") if n >= 0.9995e9 else (n / 1e6, "MB")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def _of_machine(root: Path) -> Iterator[float]:
    """Free memory of the machine; all memory where the system does not report free memory."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"))
    if found:
        yield 1024.0 * int(found[1])
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        yield float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _of_groups(root: Path) -> Iterator[float]:
    """Memory left in the control group of the process and in all groups around it, of version 2 and of version 1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, kind, path = line.split(":", 2)
        if number == "0":
            top, names, cache = root / "sys/fs/cgroup", ("memory.max", "memory.current"), "inactive_file"
        elif kind == "memory":
            top = root / "sys/fs/cgroup/memory"
            names, cache = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
        else:
            continue
        group = top / path.strip("/")
        for folder in [group, *group.parents][: len(group.parts) - len(top.parts) + 1]:
            limit, used = (_text(folder / name).strip() for name in names)
            if limit.isdigit() and used.isdigit() and int(limit) < UNLIMITED:
                # The kernel takes back files that it keeps in memory.
                kept = re.search(rf"^{cache} (\d+)", _text(folder / "memory.stat"), re.MULTILINE)
                yield float(int(limit) - int(used) + (int(kept[1]) if kept else 0))


def _of_process(root: Path) -> Iterator[float]:
    """Address space left to the process (``ulimit -v``)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], _text(root / "proc/self/statm").split()
    if limit != resource.RLIM_INFINITY and used:
        yield float(limit - int(used[0]) * resource.getpagesize())


def _text(path: Path) -> str:
    """Content of a file, empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
