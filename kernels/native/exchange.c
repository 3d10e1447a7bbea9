#define _GNU_SOURCE
#include "exchange.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define YIELD_SECONDS 0.002 /* yields for this long, then sleeps */
#define SLEEP_NANOSECONDS 100000

static _Atomic int64_t *flag_of(const Exchange *e, size_t rank) {
    return (_Atomic int64_t *)(e->memory + rank * EXCHANGE_LINE);
}

static char *buffer_of(const Exchange *e, size_t rank) {
    return e->memory + e->size * EXCHANGE_LINE + (2 * rank + e->sequence % 2) * e->capacity;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int came(const Exchange *e, size_t rank) {
    return atomic_load_explicit(flag_of(e, rank), memory_order_acquire) >= e->sequence;
}

/* Once a rank has let others run, so has the whole operation: `slow` is when it began to. */
static int wait_for(const Exchange *e, size_t rank, double *slow) {
    for (size_t i = 0; i < e->spins && *slow == 0; i++) {
        if (came(e, rank)) return 1;
        relax();
    }
    if (*slow == 0) *slow = now();
    while (!came(e, rank)) {
        const double waited = now() - *slow;
        if (waited > e->timeout_s) return 0;
        if (waited < YIELD_SECONDS)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, SLEEP_NANOSECONDS}, NULL);
    }
    return 1;
}

/* Shows `bytes` of `x`, at most `capacity`, to all ranks and waits for theirs. */
static int show(Exchange *e, const void *x, size_t bytes) {
    e->sequence++;
    memcpy(buffer_of(e, e->rank), x, bytes);
    atomic_store_explicit(flag_of(e, e->rank), e->sequence, memory_order_release);
    double slow = 0;
    for (size_t rank = 0; rank < e->size; rank++)
        if (rank != e->rank && !wait_for(e, rank, &slow)) return (int)rank;
    return ALL_CAME;
}

int exchange_sum(Exchange *e, void *x, size_t count, Type type) {
    const size_t width = type == FLOAT32 ? sizeof(float) : sizeof(bf16), step = e->capacity / width;
    for (size_t start = 0; start < count; start += step) {
        const size_t here = count - start < step ? count - start : step;
        char *piece = (char *)x + start * width;
        const int lost = show(e, piece, here * width);
        if (lost != ALL_CAME) return lost;
        const void *parts[MAX_RANKS];
        for (size_t rank = 0; rank < e->size; rank++) parts[rank] = buffer_of(e, rank);
        kernels_of(type)->sum_parts(parts, e->size, piece, here);
    }
    return ALL_CAME;
}

/* `bytes` at `start` of one rank's [rows, width] into its columns of [rows, size * width]. */
static void place(const char *from, char *out, size_t start, size_t bytes, size_t width, size_t stride) {
    for (size_t at = start; at < start + bytes;) {
        const size_t column = at % width, left = start + bytes - at, here = width - column < left ? width - column : left;
        memcpy(out + at / width * stride + column, from + (at - start), here);
        at += here;
    }
}

int exchange_gather(Exchange *e, const void *x, void *out, size_t rows, size_t width) {
    const size_t count = rows * width;
    for (size_t start = 0; start < count; start += e->capacity) {
        const size_t here = count - start < e->capacity ? count - start : e->capacity;
        const int lost = show(e, (const char *)x + start, here);
        if (lost != ALL_CAME) return lost;
        for (size_t rank = 0; rank < e->size && out != NULL; rank++)
            place(buffer_of(e, rank), (char *)out + rank * width, start, here, width, e->size * width);
    }
    return ALL_CAME;
}
