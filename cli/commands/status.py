"""`headway status`: the cluster's addresses, and each replica's state and load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from .. import console, options

if TYPE_CHECKING:
    from ..cluster.admin import ClusterMirror
    from ..cluster.files import ClusterDocument


def register(app: typer.Typer) -> None:
    app.command("status", help="Show what runs on this machine.")(status)


def status(as_json: options.AsJson = False) -> None:
    """Ends with code 1 when nothing runs."""
    from ..cluster import admin
    from ..cluster.files import Files
    from ..cluster.processes import family
    from ..cluster.teardown import running

    files = Files()
    record = running(files)
    if record is None:
        left = files.read_record() is not None
        tail = "; an earlier one was killed: `headway down` cleans up after it" if left else ""
        console.fail(f"no cluster runs here{tail}", "Start one with `headway up`.")
    document = files.read_cluster()
    if document is None:
        console.fail("the cluster is still starting", f"Logs: {files.logs}")
    with console.told(document.admin_grpc):
        mirror = admin.look(document.admin_grpc)
    document.replicas = mirror.entries()
    document.pids = sorted(process.pid for process in family(record.supervisor.pid))
    if as_json:
        console.print_json(_as_json(document, mirror))
    else:
        _print(document, mirror)


def _as_json(document: ClusterDocument, mirror: ClusterMirror) -> dict[str, Any]:
    import msgspec

    from ..cluster import admin

    routers = [admin.plain(router) for router in mirror.routers.values()]
    return msgspec.structs.asdict(document) | {"replicas": admin.statuses(mirror), "routers": routers}


def _print(document: ClusterDocument, mirror: ClusterMirror) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..cluster import admin

    out = Console(highlight=False)
    out.print(f"gRPC {document.grpc}   HTTP {document.http}   admin {document.admin}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("replica", "state", "tp×pp", "running", "waiting", "pages", "restarts", "pids"):
        table.add_column(heading)
    for replica in admin.statuses(mirror):
        state = replica.state + (f" {replica.loaded:.0%}" if replica.state == "LOADING" else "")
        load = replica.load
        pages = f"{load['used_pages']:g}+{load['cached_pages']:g}/{load['total_pages']:g}"
        table.add_row(
            replica.id,
            state,
            f"{replica.tp}×{replica.pp}",
            f"{load['running']:g}",
            f"{load['waiting']:g}",
            pages,
            str(replica.restarts),
            " ".join(map(str, replica.pids)),
        )
    out.print(table)
    for replica in admin.statuses(mirror):
        if replica.reason:
            out.print(f"{replica.id}: {replica.reason}", soft_wrap=True, markup=False)
