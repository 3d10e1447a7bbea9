"""Ranks on other machines than their leader's: control, plans and results by ZeroMQ, authenticated by CURVE.

Ranks beside the leader share memory with it and need none of this.
"""
