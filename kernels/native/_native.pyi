# Tensors are given by their addresses, and lie contiguous. `kind` is FLOAT32 or BFLOAT16 (__init__.py): the type of the
# activations and of the cache. Norms' weights, biases and rotary tables are float32. Shapes are in kernels.h.

INTERFACE: int

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
    tokens: int,
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
    """Raises IndexError for a page that is not in the cache, and for a row that its table or the tokens have no room
    for; MemoryError."""

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
    packed: int,  # whole numbers of 8 bits, in the same order, where there are scales
    scales: int,  # 0 for none
    bias: int,  # 0 for none
    out: int,  # of `kind`, or float32 where it is `wide`
    rows: int,
    inputs: int,
    outputs: int,
    wide: bool,
    /,
) -> None: ...

class Program:
    """What `program` returns: a capsule."""

Matrix = tuple[int, int, int, int, int]
"""Packed weight, scales and bias (0 for none), inputs, outputs."""

def program(
    kind: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    width: int,  # of the gated activation
    pages: int,
    page_size: int,
    layers: int,
    exchange: Exchange | None,
    /,
) -> Program:
    """A program (program.h) that waits for its layers, in order, and then for what its stage begins and ends with."""

def add_layer(
    program: Program,
    attention_norm: int,
    attention_eps: float,
    mlp_norm: int,
    mlp_eps: float,
    qkv: Matrix,
    out: Matrix,
    gate_up: Matrix,
    down: Matrix,
    query_norm: int,  # 0 for no norms
    key_norm: int,
    head_eps: float,
    cos: int,
    sin: int,
    turns: int,
    dims: int,
    keys: int,
    values: int,
    window: int,  # 0 for none
    scale: float,
    /,
) -> None:
    """Raises IndexError for one layer more than the program was made for."""

def set_embedding(program: Program, weight: int, first: int, tokens: int, vocabulary: int, /) -> None:
    """Of the first stage: rows [first, first + tokens) of the vocabulary."""

def set_head(program: Program, norm: int, eps: float, head: Matrix, /) -> None:
    """Of the last stage."""

def run_program(
    program: Program,
    token_ids: int,  # int64, and the next two
    positions: int,
    slots: int,
    tables: int,  # int32
    rows: int,  # int32
    wanted: int,  # int64
    tokens: int,
    row_count: int,
    table_width: int,
    wanted_count: int,
    stream: int,
    hidden: int,
    logits: int,  # float32
    sampled: int,
    /,
) -> int:
    """Returns -1, or a rank that did not come in time. Raises IndexError for a page, position, slot, token id or wanted
    token that is none, before anything is written; MemoryError."""

def run_rows(
    program: Program,
    tokens: int,  # int32 [rows, token_room]
    tables: int,  # int32 [rows, table_room]
    rows: int,
    token_room: int,
    table_room: int,
    row: int,  # int64 [items], and the next two
    computed: int,
    count: int,
    sample: int,  # bool [items]
    order: int,  # int64 [items], 0 for as they stand
    items: int,
    stream: int,
    hidden: int,
    logits: int,  # float32
    /,
) -> int:
    """As `run_program`, from the persistent batch; those with `sample` are wanted. Raises IndexError for an item whose
    row or tokens are none, too."""
