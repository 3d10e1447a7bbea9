/* The operations, written once and compiled for several instruction sets (see sets.c), for float32 and bfloat16. Plain C:
 * nothing here knows of Python. Sums are taken in float32, in an order that follows from a row's own operands alone. */
#ifndef HEADWAY_KERNELS_H
#define HEADWAY_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef uint16_t bf16; /* the upper half of a float */

typedef enum { FLOAT32, BFLOAT16, TYPES } Type;

static inline size_t size_of(Type type) { return type == FLOAT32 ? sizeof(float) : sizeof(bf16); }

/* Activations and the cache (void *) are of the operation's type; norms' weights, biases and rotary tables are float32
 * for both. All of it lies contiguous. */

typedef struct {
    const void *query;     /* [tokens, kv_heads * shared, head_dim] */
    const void *keys;      /* [slots, kv_heads, head_dim] */
    const void *values;    /* the same */
    const int32_t *tables; /* [rows, width], pages */
    const int32_t *rows;   /* [rows, 3]: first token, queries, context */
    void *out;             /* [tokens, kv_heads * shared, head_dim] */
    size_t count, width, pages, page_size, kv_heads, shared, head_dim, window;
    float scale;
} Attention;

typedef struct {
    const void *qkv;          /* [tokens, heads + 2 * kv_heads, head_dim] */
    const float *cos, *sin;   /* [positions, dims] */
    const int64_t *positions; /* [tokens] */
    const int64_t *slots;     /* [tokens] */
    void *query;              /* [tokens, heads, head_dim] */
    void *keys, *values;      /* [slots, kv_heads, head_dim] */
    const float *query_norm, *key_norm; /* [head_dim], NULL for no norms */
    float eps;
    size_t tokens, turns, places, heads, kv_heads, head_dim, dims; /* turns: of the tables; places: the cache's slots */
} Rope;

/* out = x @ weight^T * scales + bias. Each row of `out` has the same bits whatever the other rows are, and however many. */
typedef struct {
    const void *x;       /* [rows, inputs] */
    const void *weight;  /* of `pack`, aligned to 64 bytes */
    const float *scales; /* [outputs], NULL for none */
    const float *bias;   /* [outputs], NULL for none */
    void *out;           /* [rows, outputs], `pitch` elements apart, of x's type, or float32 where it is `wide` */
    size_t rows, inputs, outputs, pitch;
    int wide;
} Product;

typedef struct {
    /* `scratch`: BLOCK_LANES floats, `offsets`: one, for each token of the longest context and 2 * LANES more */
    void (*attend)(const Attention *, float *scratch, size_t *offsets);
    void (*add_rms_norm)(const void *x, void *residual, const float *weight, void *out, size_t rows, size_t size,
                         float eps); /* x: NULL for nothing to add, and then the residual is only read */
    void (*swiglu)(const void *gate_up, void *out, size_t rows, size_t width);
    void (*rope_kv_write)(const Rope *);
    void (*multiply)(const Product *);
    void (*multiply_8bit)(const Product *); /* the same with weights that are widened on their way, NULL for none */
    void (*widen_weights)(const int8_t *, void *out, size_t count); /* whole numbers, to the type */
    void (*sum_parts)(const void *const *parts, size_t ranks, void *out, size_t count); /* in the order of ranks */
} Kernels;

#define MAX_RANKS 64
#define MAX_NORMED 1024 /* head_dim where there are norms */
#define BLOCK_LANES 16 /* queries times the heads that share a key, attended to in one go */

/* What this processor has, the best first, which is in use until `use_set`. `find_sets` comes first, once. */
void find_sets(void);
const char *set_name(int index); /* NULL beyond the last */
int use_set(const char *name);   /* whether there is one */
const Kernels *kernels_of(Type type);

/* A matrix [outputs, inputs] as `multiply` takes it: blocks of BLOCK_OUTPUTS outputs, each with its inputs one after the
 * other (pairs of inputs where they are bfloat16, as the matrix units want them); what is left over is zero. */
#define BLOCK_OUTPUTS 32
#define TILE_INPUTS 32 /* up to a multiple of which bfloat16 is padded */
size_t packed_elements(Type type, size_t outputs, size_t inputs);
void pack(Type type, const void *weight, void *packed, size_t outputs, size_t inputs);

/* `multiply` where `weight` holds whole numbers of 8 bits, in the order of `pack`. For many rows they are widened a few
 * blocks at a time, in `room` (of `whole_room` bytes, aligned to 64), where they stay in the caches until all rows have met
 * them. Either way a row gets the same bits. */
void multiply_whole(Type type, const Product *, void *room);
size_t whole_room(Type type, size_t inputs);

#endif
