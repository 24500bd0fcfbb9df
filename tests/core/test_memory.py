"""Peak memory of a process."""

import subprocess
import sys

CHILD = "from recsys.core.memory import peak_mib; print(peak_mib())"
PARENT = f"""
import subprocess, sys
from recsys.core.memory import peak_mib
held = bytearray(b"x") * (300 << 20)
assert peak_mib() > 300
del held
assert peak_mib() > 300, "it never falls"
held = bytearray(b"x") * (300 << 20)
print(subprocess.run([sys.executable, "-c", {CHILD!r}], check=True, capture_output=True, text=True).stdout)
"""


def test_it_is_the_most_that_this_very_process_held() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT], check=True, capture_output=True, text=True)
    assert 1 < float(done.stdout) < 150, "not what the process that started it held"
