"""The model that comes with Headway, and its draft, as folders in the Hugging Face layout."""

from pathlib import Path

DEMO_DIR = Path(__file__).parent / "headway-demo"
DRAFT_DIR = Path(__file__).parent / "headway-demo-draft"
