"""Ports for servers that take theirs as an argument: no other process gets them while the tests' process runs."""

import socket


def reserved_port() -> int:
    """A port of loopback that is bound here and never listened on: servers, which set SO_REUSEADDR, may bind it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = int(held.getsockname()[1])
    held.detach()  # it stays bound until the process ends
    return port
