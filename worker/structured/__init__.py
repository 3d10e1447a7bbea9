"""Structured output: grammars of requests compiled off the loop, and the masks that hold the tokens to them.

A grammar is tried in a sandbox first, a process that may be killed; only what passes there is built in the leader, and
from then on a Guide tells, after each token of its request, which may come next.
"""
