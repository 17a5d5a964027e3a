"""Every benchmark but the peers, two at a time; those that measure seconds first and alone.

    python benchmarks/run_all.py [--data FOLDER] [--jobs 2]

Tables and figures are rewritten in place. Without ``--data`` the measured screens are left out. It ends with the
seconds that each took, and fails if one did.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
TIMED = ("scaling", "one_pass")
# the longest first, so that the last ones end together; each on one core
JOBS = (
    ("synthetic", "--jobs", "1"),
    ("real", "--jobs", "1", "--only", "l1000"),
    ("ablation",),
    ("real_cells", "--only", "placebos"),
    ("real_cells", "--only", "likelihood"),
    ("real", "--jobs", "1", "--only", "eccite", "sachs", "lines"),
    ("real_cells", "--only", "eccite", "order", "zhao", "panels"),
    ("wells",),
    ("knowledge",),
    ("replicates",),
    ("calibration",),
    ("readout", "--only", "accuracy"),
    ("readout_replicates",),
    ("covariates",),
    ("combinations",),
)
MEASURED = ("knowledge", "real", "real_cells", "replicates", "wells")  # need the folder


def run(name: str, *options: str) -> tuple[str, float, int]:
    """One script in a process of its own: its name, seconds and exit status."""
    title = " ".join([name, *options])
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options], check=False, capture_output=True, encoding="utf-8"
    )
    seconds = time.perf_counter() - start
    print(f"{title}: {seconds:.0f} s{'' if done.returncode == 0 else ', FAILED'}", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr, flush=True)
    return title, seconds, done.returncode


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the measured screens")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    start, done = time.perf_counter(), [run(name) for name in TIMED]
    jobs = [(*job, "--data", str(options.data)) if job[0] in MEASURED else job for job in JOBS]
    if options.data is None:
        jobs = [job for job in JOBS if job[0] not in MEASURED]
        print(f"{', '.join(MEASURED)}: left out, as no folder was given (--data, or make bench DATA=...)", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        done += pool.map(lambda job: run(*job), jobs)
    print(f"all: {time.perf_counter() - start:.0f} s")
    sys.exit(max(status for _, _, status in done))


if __name__ == "__main__":
    main()
