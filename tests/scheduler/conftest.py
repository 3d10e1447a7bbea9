import sys
from pathlib import Path

# importmode=importlib does not put the folder on the path, and fake_ranks is shared by the tests beside it.
sys.path.insert(0, str(Path(__file__).parent))
