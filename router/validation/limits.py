"""Bounds on requests that no model changes. `docs` and both fronts quote these."""

from __future__ import annotations

from ...core.constraints import MAX_GRAMMAR_BYTES

MAX_REQUEST_BYTES = 8 * 1024 * 1024  # encoded, on the wire: room for a million-token prompt as JSON ids
MAX_REQUEST_ID = 128
MAX_CACHE_SALT = 256
MAX_MESSAGES = 1024
MAX_STOP_STRINGS = 16
MAX_STOP_STRING = 256
MAX_STOP_TOKEN_IDS = 64
MAX_ABORT_IDS = 1024
MAX_DETOKENIZE_IDS = 1024 * 1024  # or the model's context, if that is more
MAX_LOGIT_BIAS = 1024  # ids
MAX_BAD_WORDS = 256
MAX_BAD_WORD = 256  # characters
MAX_SCHEMA_BYTES = MAX_GRAMMAR_BYTES
MAX_REGEX = 8 * 1024  # characters
MAX_CHOICES = 1024
MAX_CHOICE = 4 * 1024  # characters
MAX_EMBED_INPUTS = 2048
MAX_EMBED_TOKENS = 1024 * 1024  # of all inputs of a request
MAX_EMBED_VALUES = 8 * 1024 * 1024  # of all embeddings of an answer: 32 MiB, half of what a gRPC message may have
ROLES = ("system", "user", "assistant")
