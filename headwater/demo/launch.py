"""Becomes another program that dies with its parent, however the parent dies.

Run as a file: `python -I -S launch.py PARENT_PID PROGRAM ARGUMENT…`. The kernel is asked to kill this process when its
parent ends (prctl(2), PR_SET_PDEATHSIG); a parent that ended before that is noticed by its changed pid. A function
between fork and exec would do the same, but is not safe in a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns: the process becomes `arguments[1:]`."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(arguments[0]):
        sys.exit(1)
    os.execv(arguments[1], arguments[1:])  # noqa: S606 - what this program is for


if __name__ == "__main__":
    main(sys.argv[1:])
