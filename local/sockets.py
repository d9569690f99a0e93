"""TCP ports on loopback: finding a free one, and telling who listens."""

from __future__ import annotations

import socket

import psutil

HOST = "127.0.0.1"


def free_port() -> int:
    """A port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """True where nobody listens. A port in TIME_WAIT after a restart counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def owner_of(port: int) -> str:
    """Who listens on the port, in words."""
    for process in psutil.process_iter(["pid", "name"]):
        if port in listening_ports(process.pid):
            return f"process {process.pid} ({process.info['name']})"
    return "another program"


def listening_ports(pid: int) -> set[int]:
    """Ports that this process itself listens on; empty where the system does not let us see them."""
    try:
        process = psutil.Process(pid)
        # psutil 6 renamed the method.
        connections = getattr(process, "net_connections", None) or process.connections
        return {one.laddr.port for one in connections(kind="tcp") if one.status == psutil.CONN_LISTEN}
    except psutil.Error:
        return set()


def owns_port(pid: int, port: int) -> bool:
    """True where our own child, or what it started, listens: an answer alone could come from a stranger."""
    try:
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return False
    return any(port in listening_ports(member) for member in family)
