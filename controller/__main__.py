"""`python -m headway.controller`: see --help."""

import os
import sys

# Ray forks to start its processes; gRPC, which nothing uses between fork and exec, would complain each time.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from .process import main

sys.exit(main(sys.argv[1:]))
