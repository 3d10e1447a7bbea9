/* The operations, written once and compiled for several instruction sets (see module.c). */
#ifndef HEADWAY_KERNELS_H
#define HEADWAY_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const float *query;    /* [tokens, kv_heads * shared, head_dim] */
    const float *keys;     /* [slots, kv_heads, head_dim] */
    const float *values;   /* the same */
    const int32_t *tables; /* [rows, width], pages */
    const int32_t *rows;   /* [rows, 3]: first token, queries, context */
    float *out;            /* [tokens, kv_heads * shared, head_dim] */
    size_t count, width, pages, page_size, kv_heads, shared, head_dim, window;
    float scale;
} Attention;

typedef struct {
    const float *qkv;         /* [tokens, heads + 2 * kv_heads, head_dim] */
    const float *cos, *sin;   /* [positions, dims] */
    const int64_t *positions; /* [tokens] */
    const int64_t *slots;     /* [tokens] */
    float *query;             /* [tokens, heads, head_dim] */
    float *keys, *values;     /* [slots, kv_heads, head_dim] */
    const float *query_norm, *key_norm; /* [head_dim], NULL for no norms */
    float eps;
    size_t tokens, turns, places, heads, kv_heads, head_dim, dims; /* turns: of the tables; places: the cache's slots */
} Rope;

typedef struct {
    void (*attend)(const Attention *, float *scratch, size_t *offsets);
    void (*add_rms_norm)(const float *x, float *residual, const float *weight, float *out, size_t rows, size_t size,
                         float eps);
    void (*swiglu)(const float *gate_up, float *out, size_t rows, size_t width);
    void (*rope_kv_write)(const Rope *);
    void (*sum_floats)(const float *const *parts, size_t ranks, float *out, size_t count);
    void (*sum_bfloats)(const uint16_t *const *parts, size_t ranks, uint16_t *out, size_t count);
} Kernels;

#define SUM_FLOAT 0
#define SUM_BFLOAT 1
#define MAX_RANKS 64
#define MAX_NORMED 1024 /* head_dim where there are norms */
#define BLOCK_LANES 16 /* queries times the heads that share a key, attended to in one go */

#endif
