"""Takes requests by gRPC and HTTP and sends each to the replica that will answer it first."""
