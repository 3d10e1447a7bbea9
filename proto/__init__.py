"""The wire: .proto sources and, beside them, their generated stubs."""
