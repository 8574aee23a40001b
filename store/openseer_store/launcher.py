"""Runs a server that ends with its parent: `python launcher.py PARENT_PID SERVER ARGUMENT…`.

It is a separate program, so that no Python code of this project runs between fork and exec. When the parent has ended,
also by kill -9, the kernel sends SIGTERM to the server. Redis then flushes its append-only file and ends.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel for SIGTERM at the end of the parent, then executes the server."""
    parent, server, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the parent ended while its server was being started")
    os.execv(server, [server, *arguments])


if __name__ == "__main__":
    main()
