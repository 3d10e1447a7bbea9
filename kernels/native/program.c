#include "program.h"

#include <stdlib.h>
#include <string.h>


#define ALIGNMENT 64
#define EXTRA_TOKENS 32 /* attention: 2 * LANES */

/* What the operations of one step share. */
typedef struct {
    const Program *program;
    const ProgramStep *step;
    const Kernels *kernels;
    size_t tokens;    /* that go on: all of them, and after the last layer's attention those that are wanted */
    void *stream;     /* [tokens, hidden], the residual */
    void *x;          /* [tokens, hidden], a norm's output, or what is still to be added to the stream */
    void *wide;       /* [tokens, of qkv, or of gate and up] */
    void *query;      /* [tokens, heads * head_dim] */
    void *attended;   /* the same, or [tokens, width] */
    void *local;      /* logits of this rank's part of the vocabulary */
    void *widened;    /* weights of 8 bits, a few blocks of them */
    float *scratch;   /* of attention */
    size_t *offsets;
    size_t lost;
} Run;

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t element(const Program *p) { return size_of(p->type); }

static size_t longest(const ProgramStep *s) {
    int32_t most = 0;
    for (size_t row = 0; row < s->row_count; row++) most = s->rows[3 * row + 2] > most ? s->rows[3 * row + 2] : most;
    return (size_t)most;
}

/* Parts of one piece of memory, one after the other; with NULL for it, how much they take. */
static void *part(char *memory, size_t *at, size_t bytes) {
    char *here = memory == NULL ? NULL : memory + *at;
    *at += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return here;
}

static size_t lay_out(Run *run, char *memory) {
    const Program *p = run->program;
    const size_t tokens = run->step->tokens, bytes = element(p), context = longest(run->step) + EXTRA_TOKENS;
    const size_t queries = p->heads * p->head_dim, all = queries + 2 * p->kv_heads * p->head_dim;
    size_t at = 0;
    run->stream = part(memory, &at, tokens * p->hidden * bytes);
    run->x = part(memory, &at, tokens * p->hidden * bytes);
    run->wide = part(memory, &at, tokens * larger(all, 2 * p->width) * bytes);
    run->query = part(memory, &at, tokens * larger(queries, p->hidden) * bytes);
    run->attended = part(memory, &at, tokens * larger(queries, p->width) * bytes);
    run->local = part(memory, &at, run->step->sampled * p->head.outputs * sizeof(float));
    run->widened = part(memory, &at, p->widest ? whole_room(p->type, p->widest) : 0);
    run->scratch = part(memory, &at, context * BLOCK_LANES * sizeof(float));
    run->offsets = part(memory, &at, context * sizeof(size_t));
    return at;
}

static int find_memory(Program *p, Run *run) {
    const size_t needed = lay_out(run, NULL);
    if (needed > p->room) {
        void *made;
        free(p->memory);
        p->memory = NULL;
        p->room = 0;
        if (posix_memalign(&made, ALIGNMENT, needed + needed / 2) != 0) return 0;
        p->memory = made;
        p->room = needed + needed / 2;
    }
    lay_out(run, p->memory);
    return 1;
}

static int sum(Run *run, void *x, size_t count) {
    const Program *p = run->program;
    if (p->exchange == NULL) return 1;
    const int lost = exchange_sum(p->exchange, x, count, p->type);
    run->lost = (size_t)lost;
    return lost == ALL_CAME;
}

static void multiply_rows(const Run *run, const Matrix *m, const void *x, void *out, size_t rows, int wide) {
    const Product product = {
        .x = x, .weight = m->weight, .scales = m->scales, .bias = m->bias, .out = out, .rows = rows,
        .inputs = m->inputs, .outputs = m->outputs, .pitch = m->outputs, .wide = wide,
    };
    if (m->scales == NULL) run->kernels->multiply(&product);
    else multiply_whole(run->program->type, &product, run->widened);
}

static void multiply(const Run *run, const Matrix *m, const void *x, void *out) {
    multiply_rows(run, m, x, out, run->tokens, 0);
}

/* Rows `which` of [.., bytes] one after the other. */
static void pick_rows(const void *from, const int64_t *which, size_t count, size_t bytes, void *into) {
    for (size_t i = 0; i < count; i++) memcpy((char *)into + i * bytes, (const char *)from + which[i] * bytes, bytes);
}

static int embed(Run *run) {
    const Program *p = run->program;
    const size_t bytes = p->hidden * element(p);
    for (size_t i = 0; i < run->tokens; i++) {
        const uint64_t row = (uint64_t)run->step->token_ids[i] - p->first_token; /* below the first: far above */
        char *into = (char *)run->stream + i * bytes;
        if (row >= p->tokens) memset(into, 0, bytes);
        else memcpy(into, (const char *)p->embedding + row * bytes, bytes);
    }
    return p->tokens == p->vocabulary || sum(run, run->stream, run->tokens * p->hidden);
}

static void attend(Run *run, const ProgramLayer *layer) {
    const Program *p = run->program;
    const ProgramStep *s = run->step;
    multiply(run, &layer->qkv, run->x, run->wide);
    const Rope rope = {
        .qkv = run->wide, .cos = layer->cos, .sin = layer->sin, .positions = s->positions, .slots = s->slots,
        .query = run->query, .keys = layer->keys, .values = layer->values, .query_norm = layer->query_norm,
        .key_norm = layer->key_norm, .eps = layer->head_eps, .tokens = run->tokens, .turns = layer->turns,
        .places = p->pages * p->page_size, .heads = p->heads, .kv_heads = p->kv_heads, .head_dim = p->head_dim,
        .dims = layer->dims,
    };
    run->kernels->rope_kv_write(&rope);
    const Attention attention = {
        .query = run->query, .keys = layer->keys, .values = layer->values, .tables = s->tables, .rows = s->rows,
        .out = run->attended, .count = s->row_count, .width = s->table_width, .pages = p->pages,
        .page_size = p->page_size, .kv_heads = p->kv_heads, .shared = p->heads / p->kv_heads, .head_dim = p->head_dim,
        .window = layer->window, .scale = layer->scale,
    };
    run->kernels->attend(&attention, run->scratch, run->offsets);
}

/* Only the wanted tokens go on; `query` and `wide` are free by now. */
static void narrow(Run *run) {
    const Program *p = run->program;
    const ProgramStep *s = run->step;
    const size_t queries = p->heads * p->head_dim * element(p), hidden = p->hidden * element(p);
    pick_rows(run->stream, s->wanted, s->wanted_count, hidden, run->query);
    memcpy(run->stream, run->query, s->wanted_count * hidden);
    pick_rows(run->attended, s->wanted, s->wanted_count, queries, run->query);
    memcpy(run->attended, run->query, s->wanted_count * queries);
    run->tokens = s->wanted_count;
}

/* Leaves in `x` what is still to be added to the stream. */
static int run_layer(Run *run, const ProgramLayer *layer, int first, int last) {
    const Program *p = run->program;
    const Kernels *k = run->kernels;
    k->add_rms_norm(first ? NULL : run->x, run->stream, layer->attention_norm, run->x, run->tokens, p->hidden,
                    layer->attention_eps);
    attend(run, layer);
    if (last) narrow(run);
    if (run->tokens == 0) return 1;
    multiply(run, &layer->out, run->attended, run->x);
    if (!sum(run, run->x, run->tokens * p->hidden)) return 0;
    k->add_rms_norm(run->x, run->stream, layer->mlp_norm, run->x, run->tokens, p->hidden, layer->mlp_eps);
    multiply(run, &layer->gate_up, run->x, run->wide);
    k->swiglu(run->wide, run->attended, run->tokens, p->width);
    multiply(run, &layer->down, run->attended, run->x);
    return sum(run, run->x, run->tokens * p->hidden);
}

static int finish(Run *run) {
    const Program *p = run->program;
    const ProgramStep *s = run->step;
    if (run->tokens == 0) return 1;
    run->kernels->add_rms_norm(run->x, run->stream, p->final_norm, s->hidden, run->tokens, p->hidden, p->final_eps);
    if (s->sampled == 0) return 1;
    const size_t row = p->head.outputs * sizeof(float);
    void *out = p->exchange == NULL ? (void *)s->logits : run->local;
    multiply_rows(run, &p->head, s->hidden, out, s->sampled, 1);
    if (p->exchange == NULL) return 1;
    const int lost = exchange_gather(p->exchange, run->local, s->logits, s->sampled, row);
    run->lost = (size_t)lost;
    return lost == ALL_CAME;
}

/* Adds what the last layer left into the stream for the stage after: the norm is of no use there. */
static void hand_on(Run *run) {
    const Program *p = run->program;
    const ProgramLayer *layer = &p->layers[p->layer_count - 1];
    run->kernels->add_rms_norm(run->x, run->stream, layer->mlp_norm, run->x, run->tokens, p->hidden, layer->mlp_eps);
    memcpy(run->step->stream, run->stream, run->tokens * p->hidden * element(p));
}

static RunEnd run_all(Run *run) {
    const Program *p = run->program;
    const int is_last = p->final_norm != NULL;
    if (p->embedding == NULL) memcpy(run->stream, run->step->stream, run->tokens * p->hidden * element(p));
    else if (!embed(run)) return RUN_LOST;
    for (size_t i = 0; i < p->layer_count; i++)
        if (!run_layer(run, &p->layers[i], i == 0, is_last && i + 1 == p->layer_count)) return RUN_LOST;
    if (is_last) return finish(run) ? RUN_DONE : RUN_LOST;
    hand_on(run);
    return RUN_DONE;
}

static RunEnd check(const Program *p, const ProgramStep *s, size_t *where) {
    for (*where = 0; *where < s->row_count; ++*where) {
        const int32_t *row = s->rows + 3 * *where, *table = s->tables + *where * s->table_width;
        if (row[0] < 0 || row[1] < 0 || row[2] < row[1] || (size_t)row[0] + row[1] > s->tokens) return RUN_PAGE;
        if ((size_t)row[2] > s->table_width * p->page_size) return RUN_PAGE;
        for (size_t page = 0; page * p->page_size < (size_t)row[2]; page++)
            if ((uint32_t)table[page] >= p->pages) return RUN_PAGE; /* below zero: far above */
    }
    for (*where = 0; *where < s->tokens; ++*where) {
        const uint64_t position = s->positions[*where], slot = s->slots[*where], token = s->token_ids[*where];
        if (slot >= p->pages * p->page_size || position >= p->layers[0].turns) return RUN_PLACE;
        if (p->embedding != NULL && token >= p->vocabulary) return RUN_TOKEN;
    }
    for (*where = 0; *where < s->wanted_count; ++*where)
        if ((uint64_t)s->wanted[*where] >= s->tokens) return RUN_WANTED;
    return s->wanted_count > s->tokens || s->sampled > s->wanted_count ? RUN_WANTED : RUN_DONE;
}

RunEnd program_run(Program *p, const ProgramStep *s, size_t *where) {
    Run run = {.program = p, .step = s, .kernels = kernels_of(p->type), .tokens = s->tokens};
    RunEnd end = check(p, s, where);
    if (end != RUN_DONE) return end;
    if (!find_memory(p, &run)) return RUN_MEMORY;
    end = run_all(&run);
    *where = run.lost;
    return end;
}

void program_free(Program *p) {
    free(p->layers);
    free(p->memory);
    free(p->inputs);
    free(p);
}
