"""Headway beside its peers, on one machine, with one checkpoint, over one protocol."""
