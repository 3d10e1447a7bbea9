"""Ranks of one worker group: where each stands, and how tensors travel between them."""
