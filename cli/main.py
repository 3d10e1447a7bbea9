"""The `headway` command. Each verb is a module with a `register`; heavy imports wait until a verb runs."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from . import commands

app = typer.Typer(
    name="headway",
    help="Serve large language models on many GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda found: found.name):
    importlib.import_module(f"{commands.__name__}.{module.name}").register(app)


def main() -> None:
    """Entry point: errors go to stderr with a non-zero exit code, and Ctrl-C ends with 130."""
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        # Only now: the tree brings gRPC along, 0.2 s that --help need not wait.
        from ..core.errors import ConfigError, HeadwayError

        if not isinstance(error, (HeadwayError, ConfigError, OSError)):
            raise
        print(f"headway: {error}", file=sys.stderr)
        raise SystemExit(1) from None
