/* Ranks of one machine that show each other numbers through memory which all of them map: `size` flags, each on a cache
 * line of its own, then two buffers of `capacity` bytes for each rank. Whatever is longer goes in pieces.
 *
 * In operation n a rank fills its buffer n % 2, sets its flag to n, waits until all flags have reached n, and reads all
 * buffers in the order of ranks. Whoever starts n + 2, and so overwrites the buffers of n, has seen every flag at
 * n + 1: by then every rank had finished reading n. */
#ifndef HEADWAY_EXCHANGE_H
#define HEADWAY_EXCHANGE_H

#include "kernels.h"

#define EXCHANGE_LINE 64 /* bytes of a cache line */
#define ALL_CAME (-1)

typedef struct {
    char *memory;
    size_t rank, size, capacity;
    int64_t sequence;
    size_t spins;     /* looks at a flag before the core is given away */
    double timeout_s; /* of each operation */
} Exchange;

/* Sums `count` numbers of `type` over the ranks, in their order, in place: the same bits on each. Half types
 * are rounded once, at the end. Returns ALL_CAME, or a rank that did not come in time. */
int exchange_sum(Exchange *, void *x, size_t count, Type type);

/* Puts the ranks' `x`, [rows, width] bytes, side by side: `out` is [rows, size * width], NULL on ranks that do not want
 * it. Returns the same. */
int exchange_gather(Exchange *, const void *x, void *out, size_t rows, size_t width);

#endif
