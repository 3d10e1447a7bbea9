"""A cluster on this machine: its processes, its document, its start and its end."""
