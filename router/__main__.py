"""`python -m headway.router`: one router process."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
import uuid

import uvloop

from ..core.logs import set_up_logs
from .app import Router, RouterConfig

log = logging.getLogger(__name__)


def _arguments() -> RouterConfig:
    parser = argparse.ArgumentParser(prog="python -m headway.router", description="Takes requests by gRPC and HTTP.")
    parser.add_argument("--controller", default="", metavar="HOST:PORT", help="who tells of replicas")
    parser.add_argument(
        "--replica", action="append", default=[], metavar="HOST:PORT", help="serve this one without a controller"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--grpc-port", type=int, default=8100, help="0: any free one")
    parser.add_argument("--http-port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--advertise-host", default="", help="host that others reach this router by")
    parser.add_argument("--router-id", default="", help="unique among routers; made up when empty")
    parser.add_argument("--grace", type=float, default=30.0, metavar="SECONDS", help="for streams, after SIGTERM")
    args = parser.parse_args()
    if bool(args.controller) == bool(args.replica):
        parser.error("give either --controller or at least one --replica")
    return RouterConfig(
        router_id=args.router_id or f"router-{socket.gethostname()}-{uuid.uuid4().hex[:6]}",
        controller=args.controller,
        replicas=tuple(args.replica),
        host=args.host,
        grpc_port=args.grpc_port,
        http_port=args.http_port,
        advertise_host=args.advertise_host,
        grace_s=args.grace,
    )


async def _serve(config: RouterConfig) -> None:
    await Router(config).run()


def main() -> int:
    config = _arguments()
    set_up_logs("router")
    try:
        uvloop.run(_serve(config))
    except OSError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
