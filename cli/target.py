"""Which cluster a verb talks to: --address, else HEADWAY_ADDRESS, else the one that `headway up` started here."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from .console import fail


def home() -> Path:
    """Where the local cluster's files lie: $HEADWAY_HOME, else ~/.headway."""
    return Path(os.environ.get("HEADWAY_HOME") or Path.home() / ".headway")


class ClusterAddresses(msgspec.Struct):
    """Of the running cluster's document, what its users need; "host:port", and URLs for http and admin."""

    grpc: str
    http: str = ""
    admin: str = ""
    admin_grpc: str = ""


def local_cluster() -> ClusterAddresses | None:
    """The cluster that runs on this machine by its own document, None when there is none. Raises ValueError when the
    document cannot be read."""
    path = home() / "cluster.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterAddresses)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def grpc_address(option: str | None) -> str:
    """The gRPC front's "host:port". Ends the command when no cluster is known."""
    from ..client.address import check_address

    given = option or os.environ.get("HEADWAY_ADDRESS")
    if given:
        try:
            return check_address(given)
        except ValueError as error:
            fail(str(error), "For example: --address 127.0.0.1:8001")
    try:
        cluster = local_cluster()
    except ValueError as error:
        fail(str(error), "End the cluster with `headway down`, then start one with `headway up`.")
    if cluster is None:
        fail("no cluster runs here", "Start one with `headway up`, or name another's gRPC front: --address HOST:PORT")
    return cluster.grpc
