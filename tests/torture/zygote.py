"""A real node within milliseconds of each kill: what it needs is imported once, every start is a fork.

`python -m tests.torture.zygote CONFIG`: a line on standard input starts `headwater run`; its process id is printed, and
`gone` when it has ended.
"""

from __future__ import annotations

import gc
import os
import sys

import gateway.serve
import headwater.app.core
from headwater.cli.run import run_node


def main() -> None:
    assert gateway.serve
    assert headwater.app.core
    gc.freeze()
    for _ in sys.stdin:
        if (pid := os.fork()) == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            os._exit(run_node(sys.argv[1], "warning", "text"))
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
