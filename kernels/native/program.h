/* A stage of a plain decoder as one call: what a rank's layers do with a step's tokens, the sums over ranks included.
 *
 * Made once, when weights and caches lie where they stay. It calls the operations of kernels.h in the order and with the
 * operands in which the model in Python calls them one by one: the results have the same bits. */
#ifndef HEADWAY_PROGRAM_H
#define HEADWAY_PROGRAM_H

#include "exchange.h"
#include "kernels.h"

typedef struct {
    const void *weight;  /* of `pack`, or of 8 bits where there are scales */
    const float *scales; /* [outputs], NULL for none */
    const float *bias;   /* [outputs], NULL for none */
    size_t inputs, outputs;
} Matrix;

typedef struct {
    const float *attention_norm, *mlp_norm; /* [hidden] */
    float attention_eps, mlp_eps;
    Matrix qkv, out, gate_up, down;
    const float *query_norm, *key_norm; /* [head_dim], NULL for no norms */
    float head_eps;
    const float *cos, *sin; /* [turns, dims] */
    size_t turns, dims;
    void *keys, *values; /* [pages, page_size, kv_heads, head_dim] */
    size_t window;       /* 0 for none */
    float scale;
} ProgramLayer;

typedef struct {
    Type type;
    size_t hidden, heads, kv_heads, head_dim, width; /* this rank's; width: of the gated activation */
    size_t pages, page_size, layer_count, layer_room;
    ProgramLayer *layers;
    Exchange *exchange; /* NULL for a rank that shares its layers with no other */
    /* On the first stage: rows [first_token, first_token + tokens) of the vocabulary. */
    const void *embedding;
    size_t first_token, tokens, vocabulary;
    /* On the last stage. */
    const float *final_norm;
    float final_eps;
    Matrix head;
    size_t widest; /* inputs of any matrix of 8 bits */
    /* Memory that grows with the longest step so far. */
    char *memory, *inputs;
    size_t room, input_room;
} Program;

typedef struct {
    const int64_t *token_ids, *positions, *slots; /* [tokens] */
    const int32_t *tables;                        /* [rows, table_width], pages */
    const int32_t *rows;                          /* [rows, 3]: first token, queries, context */
    const int64_t *wanted;                        /* [wanted_count], tokens */
    size_t tokens, row_count, table_width, wanted_count;
    void *stream;  /* [tokens, hidden]: from the stage before, to the stage after; NULL where there is neither */
    void *hidden;  /* [wanted_count, hidden], of the last stage */
    float *logits; /* [sampled, vocabulary], on the rank that samples */
    size_t sampled; /* the first of the wanted tokens, of which there are logits */
} ProgramStep;

/* The same from the persistent batch: rows' known tokens and block tables, and what the step computes of which. */
typedef struct {
    const int32_t *tokens, *tables; /* [rows, token_room], [rows, table_room] */
    size_t rows, token_room, table_room;
    const int64_t *row, *computed, *count; /* [items] */
    const uint8_t *sample;                 /* [items], whether the last token is wanted, and its logits are */
    const int64_t *order;                  /* [items], which comes first, NULL for as they stand: stages have to agree */
    size_t items;
    void *stream, *hidden;
    float *logits;
} RowStep;

typedef enum { RUN_DONE, RUN_LOST, RUN_PAGE, RUN_PLACE, RUN_TOKEN, RUN_WANTED, RUN_ITEM, RUN_MEMORY } RunEnd;

/* Runs a step. `where` is told which rank was lost, which row has a page or which token has a place, a number or a turn
 * that is none: of these nothing was written. */
RunEnd program_run(Program *, const ProgramStep *, size_t *where);

/* Runs a step of rows. An item whose row or tokens are none is told by its number. */
RunEnd program_run_rows(Program *, const RowStep *, size_t *where);

void program_free(Program *);

#endif
