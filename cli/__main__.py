"""`python -m headway.cli` is the `headway` command."""

from .main import main

main()
