#include "program.h"

#include <stdlib.h>
#include <string.h>

/* What a ProgramStep points to. */
typedef struct {
    int64_t *token_ids, *positions, *slots, *wanted, *last;
    int32_t *tables, *rows;
} Flat;

static RunEnd measure(const Program *p, const RowStep *s, ProgramStep *step, size_t *where) {
    size_t longest = 0;
    for (*where = 0; *where < s->items; ++*where) {
        const size_t row = s->row[*where], computed = s->computed[*where], count = s->count[*where];
        const size_t end = computed + count; /* below zero: far above */
        if (row >= s->rows || count == 0 || computed > s->token_room || count > s->token_room - computed)
            return RUN_ITEM;
        if (end > s->table_room * p->page_size) return RUN_ITEM;
        if (s->order != NULL && (uint64_t)s->order[*where] >= s->items) return RUN_ITEM;
        longest = end > longest ? end : longest;
        step->tokens += count;
        step->wanted_count += s->sample[*where];
    }
    step->row_count = s->items;
    step->table_width = (longest + p->page_size - 1) / p->page_size;
    step->sampled = step->wanted_count;
    return RUN_DONE;
}

static int find_room(Program *p, const ProgramStep *s, Flat *flat) {
    const size_t words = 3 * s->tokens + s->wanted_count + s->row_count, halves = s->row_count * (s->table_width + 3);
    const size_t needed = words * sizeof(int64_t) + halves * sizeof(int32_t);
    if (needed > p->input_room) {
        free(p->inputs);
        p->inputs = malloc(2 * needed);
        p->input_room = p->inputs == NULL ? 0 : 2 * needed;
        if (p->inputs == NULL) return 0;
    }
    flat->token_ids = (int64_t *)p->inputs;
    flat->positions = flat->token_ids + s->tokens;
    flat->slots = flat->positions + s->tokens;
    flat->wanted = flat->slots + s->tokens;
    flat->last = flat->wanted + s->wanted_count;
    flat->tables = (int32_t *)(flat->last + s->row_count);
    flat->rows = flat->tables + s->row_count * s->table_width;
    return 1;
}

/* The item's tokens from `token` on, as row `at`; returns the token after them. */
static size_t fill_row(const Program *p, const RowStep *s, size_t item, size_t at, size_t token, size_t width,
                       const Flat *flat) {
    const size_t row = s->row[item], computed = s->computed[item], end = computed + s->count[item];
    const int32_t *tokens = s->tokens + row * s->token_room, *table = s->tables + row * s->table_room;
    memcpy(flat->tables + at * width, table, width * sizeof *table);
    flat->rows[3 * at] = (int32_t)token;
    flat->rows[3 * at + 1] = (int32_t)(end - computed);
    flat->rows[3 * at + 2] = (int32_t)end;
    for (size_t position = computed; position < end; position++, token++) {
        const int64_t page = table[position / p->page_size], size = (int64_t)p->page_size;
        flat->token_ids[token] = tokens[position];
        flat->positions[token] = (int64_t)position;
        flat->slots[token] = page * size + (int64_t)(position % p->page_size);
    }
    return token;
}

/* The wanted tokens come as the items stand. */
static void fill(const Program *p, const RowStep *s, const ProgramStep *step, const Flat *flat) {
    size_t token = 0, wanted = 0;
    for (size_t at = 0; at < s->items; at++) {
        const size_t item = s->order == NULL ? at : (size_t)s->order[at];
        token = fill_row(p, s, item, at, token, step->table_width, flat);
        flat->last[item] = (int64_t)token - 1;
    }
    for (size_t item = 0; item < s->items; item++)
        if (s->sample[item]) flat->wanted[wanted++] = flat->last[item];
}

RunEnd program_run_rows(Program *p, const RowStep *s, size_t *where) {
    ProgramStep step = {.stream = s->stream, .hidden = s->hidden, .logits = s->logits};
    Flat flat;
    const RunEnd end = measure(p, s, &step, where);
    if (end != RUN_DONE) return end;
    if (!find_room(p, &step, &flat)) return RUN_MEMORY;
    fill(p, s, &step, &flat);
    step.token_ids = flat.token_ids;
    step.positions = flat.positions;
    step.slots = flat.slots;
    step.wanted = flat.wanted;
    step.tables = flat.tables;
    step.rows = flat.rows;
    return program_run(p, &step, where);
}
