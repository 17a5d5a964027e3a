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
OTHERS = ("synthetic", "ablation", "calibration")  # the longest first, so that the last ones end together
MEASURED = ("real_cells", "real")


def run(name: str, *options: str) -> tuple[str, float, int]:
    """One script in a process of its own: its name, seconds and exit status."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options], check=False, capture_output=True, encoding="utf-8"
    )
    seconds = time.perf_counter() - start
    print(f"{name}: {seconds:.0f} s{'' if done.returncode == 0 else ', FAILED'}", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr, flush=True)
    return name, seconds, done.returncode


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the measured screens")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    start, done = time.perf_counter(), [run(name) for name in TIMED]
    jobs = [(name,) for name in OTHERS]
    if options.data is None:
        print(f"{', '.join(MEASURED)}: left out, as no folder was given (--data, or make bench DATA=...)", flush=True)
    else:
        jobs = [(name, "--data", str(options.data)) for name in MEASURED] + jobs
    with ThreadPoolExecutor(options.jobs) as pool:
        done += pool.map(lambda job: run(*job), jobs)
    print(f"all: {time.perf_counter() - start:.0f} s")
    sys.exit(max(status for _, _, status in done))


if __name__ == "__main__":
    main()
