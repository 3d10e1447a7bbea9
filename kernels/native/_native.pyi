# Tensors are given by their addresses, and lie contiguous. `kind` is FLOAT32 or BFLOAT16 (__init__.py): the type of the
# activations and of the cache. Norms' weights, biases and rotary tables are float32. Shapes are in kernels.h.

def instruction_sets() -> list[str]:
    """Those that this processor has, the best first: that one is in use."""

def use(instruction_set: str, /) -> None:
    """From now on, in this process. Raises ValueError."""

def attend(
    kind: int,
    query: int,
    keys: int,
    values: int,
    tables: int,  # int32
    rows: int,  # int32
    out: int,
    count: int,
    width: int,
    pages: int,
    page_size: int,
    kv_heads: int,
    shared: int,
    head_dim: int,  # a multiple of LANES
    window: int,  # 0 for none
    scale: float,
    /,
) -> None:
    """Raises IndexError for a page that is not in the cache, MemoryError."""

def add_rms_norm(
    kind: int, x: int, residual: int, weight: int, out: int, rows: int, size: int, eps: float, /
) -> None: ...
def swiglu(kind: int, gate_up: int, out: int, rows: int, width: int, /) -> None: ...
def rope_kv_write(
    kind: int,
    qkv: int,
    cos: int,
    sin: int,
    positions: int,  # int64
    slots: int,  # int64
    query: int,
    keys: int,
    values: int,
    query_norm: int,  # 0 for no norms
    key_norm: int,
    tokens: int,
    turns: int,  # positions of the tables
    places: int,  # slots of the cache
    heads: int,
    kv_heads: int,
    head_dim: int,
    dims: int,
    eps: float,
    /,
) -> None:
    """Raises IndexError for a position or slot that is none, before anything is written."""

class Exchange:
    """What `exchange` returns: a capsule."""

def exchange(memory: int, rank: int, size: int, capacity: int, spins: int, timeout_s: float, /) -> Exchange:
    """A rank's part in the exchange over `memory` (exchange.h), which has to outlive it. Raises ValueError."""

def set_timeout(exchange: Exchange, timeout_s: float, /) -> None: ...
def sum_over_ranks(exchange: Exchange, x: int, count: int, kind: int, /) -> int:
    """In place. Returns -1, or a rank that did not come in time."""

def gather_over_ranks(exchange: Exchange, x: int, out: int, rows: int, width: int, /) -> int:
    """`width` in bytes; `out` is 0 where it is not wanted. Returns the same."""

def packed_size(kind: int, outputs: int, inputs: int, /) -> int:
    """Elements of a packed weight."""

def pack(kind: int, weight: int, packed: int, outputs: int, inputs: int, /) -> None:
    """Packs a [outputs, inputs] weight for `multiply`; `packed` is aligned to 64 bytes."""

def multiply(
    kind: int,
    x: int,
    packed: int,
    bias: int,  # 0 for none
    out: int,  # of `kind`, or float32 where it is `wide`
    rows: int,
    inputs: int,
    outputs: int,
    wide: bool,
    /,
) -> None: ...
