/* Where a row's keys and values are. */
#ifndef HEADWAY_PLACES_H
#define HEADWAY_PLACES_H

#include "kernels.h"

/* Elements before the first head's key of each of `count` tokens from `base` on. What is not seen, outside of
 * [first, end), stands for a token that is. */
static void place_tokens(const Attention *a, const int32_t *table, size_t base, size_t first, size_t end, size_t count,
                         size_t *offsets) {
    const size_t step = a->kv_heads * a->head_dim;
    size_t page = first / a->page_size, at = first % a->page_size;
    for (size_t t = first; t < end; t++) {
        offsets[t - base] = ((size_t)table[page] * a->page_size + at) * step;
        if (++at == a->page_size) {
            at = 0;
            page++;
        }
    }
    for (size_t t = base; t < first; t++) offsets[t - base] = offsets[first - base];
    for (size_t t = end - base; t < count; t++) offsets[t] = offsets[end - 1 - base];
}

#endif
