import sys
from pathlib import Path

# importmode=importlib does not put folders on the path; the scheduler's machine and its checked ranks serve here, too.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scheduler")]
sys.path.append(str(Path(__file__).parents[1] / "support"))
