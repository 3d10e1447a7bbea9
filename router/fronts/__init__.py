"""How requests come in: gRPC and OpenAI-style HTTP, both translated to one request type."""
