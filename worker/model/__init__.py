"""Checkpoints and architectures: configuration, slices of weights, forward pass."""
