"""What a process and its descendants take, on processes that take a known amount."""

import subprocess
import sys

from tools.process_tree import tree_of, watched

GRANDCHILD = """
import time
data, end = bytearray(b"x") * (80 << 20), time.process_time() + 1.0
while time.process_time() < end:
    pass
print("done", flush=True)
input()
"""
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"


def test_memory_and_time_of_a_grandchild_count() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        with watched(process.pid) as usage:
            assert process.stdout.readline() == "done\n"
            usage.look(process.pid)
            assert len(tree_of(process.pid)) == 2
        process.communicate("\n")
    assert 1.0 <= usage.cpu_seconds < 5.0
    assert 80 < usage.peak_mib < 160


def test_a_process_that_has_ended_takes_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert tree_of(process.pid) == {}
    with watched(process.pid) as usage:
        pass
    assert usage.cpu_seconds == usage.peak_mib == 0.0
