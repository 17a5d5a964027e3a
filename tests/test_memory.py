from __future__ import annotations

import subprocess
import sys

import pytest

from scgim._memory import available_memory, in_bytes, require_memory

MB = 10**6


@pytest.fixture
def machine(tmp_path):
    """``machine(files)``: the root of a machine with 1,024 MB free, and further files."""

    def build(files):
        for name, text in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:   1000000 kB\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


def group(folder, limit, used, cache=0, *, names=("memory.max", "memory.current"), stat="inactive_file"):
    return dict(
        zip(
            [f"{folder}/{name}" for name in (*names, "memory.stat")],
            [f"{limit}\n", f"{used}\n", f"anon 5\n{stat} {cache}\n"],
            strict=True,
        )
    )


V1 = {"names": ("memory.limit_in_bytes", "memory.usage_in_bytes"), "stat": "total_inactive_file"}
TWO, ONE = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 1024 * MB, id="machine"),
        pytest.param({"proc/self/cgroup": "0::/\n", **group(TWO, 500 * MB, 100 * MB)}, 400 * MB, id="container"),
        pytest.param({"proc/self/cgroup": "0::/\n", **group(TWO, "max", 100 * MB)}, 1024 * MB, id="without limit"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", **group(TWO, 500 * MB, 400 * MB, 300 * MB)},
            400 * MB,
            id="cached files are free",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/job/step\n",
                **group(f"{TWO}/job", 300 * MB, 0),
                **group(f"{TWO}/job/step", "max", 0),
            },
            300 * MB,
            id="limit of an outer group",
        ),
        pytest.param(
            {"proc/self/cgroup": "8:cpu:/a\n4:memory:/a\n", **group(f"{ONE}/a", 200 * MB, 50 * MB, **V1)},
            150 * MB,
            id="version 1",
        ),
        pytest.param(
            {"proc/self/cgroup": "4:memory:/\n", **group(ONE, 2**63 - 4096, 0, **V1)},
            1024 * MB,
            id="version 1 without limit",
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", **group(TWO, MB, 2 * MB)}, 0, id="never negative"),
    ],
)
def test_the_least_limit_counts(machine, files, expected):
    assert available_memory(machine(files)) == expected


def test_a_system_that_reports_nothing_free_has_all_its_memory(tmp_path):
    assert 10 * MB < available_memory(tmp_path)


def test_a_limit_of_the_address_space_counts():
    code = """
import resource
from scgim._memory import available_memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, used + 10**8))
print(available_memory())
"""
    if sys.platform != "linux":
        pytest.skip("/proc")
    found = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 5e7 < found <= 1e8


def test_what_does_not_fit_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr("scgim._memory.available_memory", lambda: 2e9)
    require_memory(2e9, "100 cells", "use fewer")
    with pytest.raises(MemoryError, match=r"^100 cells need 2\.1 GB of memory and 2\.0 GB are available: use fewer\.$"):
        require_memory(2.1e9, "100 cells", "use fewer")


def test_bytes_have_no_more_than_two_digits_behind_the_unit():
    assert [in_bytes(n) for n in (4e5, 9.99e8, 1e9, 9.4e9, 1.5e12)] == [
        "0.4 MB",
        "999 MB",
        "1.0 GB",
        "9.4 GB",
        "1,500 GB",
    ]
