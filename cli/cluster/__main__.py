"""`python -m headway.cli.cluster OPTIONS`: the supervisor of a detached cluster."""

import sys

from .detached import main

sys.exit(main())
