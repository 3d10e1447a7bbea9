"""The Python client for internal services."""
