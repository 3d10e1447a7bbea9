"""Trains the demo model and its draft from the standard library's sources: `python -m tools.demo_model --help`."""
