"""What is freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from headwater.memory import give_back_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

if sys.argv[1] == "given back":
    give_back_large_blocks()
del (first := [bytes(16 << 20)])[:]  # its end moves glibc's own threshold above the others' size
before = resident()
kept, large = [], []
for _ in range(64):
    large.append(bytearray(b"x") * (1 << 20))
    kept.append(bytes(1000))
large.clear()
print(resident() - before)
"""


def left(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)


def test_small_objects_between_large_blocks_do_not_keep_their_memory() -> None:
    assert left("given back") < 8
    assert left("as it is") > 32  # else this shows nothing
