"""Applies step plans: the persistent batch, the inputs of a step, forward, sample."""
