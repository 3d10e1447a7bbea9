"""Decides how many worker groups there are, of which model, and where."""
