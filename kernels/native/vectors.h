/* Vectors of 16 floats in the compiler's own notation: they become whatever registers the target has.
 *
 * Every sum here has an order that follows from its own operands alone, so that a token gets the same bits whoever else
 * is in the batch. NaN goes through all of it: nothing may be compiled with -ffast-math. */
#ifndef HEADWAY_VECTORS_H
#define HEADWAY_VECTORS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef int8_t bvec __attribute__((vector_size(LANES)));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES)));

#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})

/* The functions of vectors.inc are made anew for each instruction set: the compiler lowers a function's vectors to what
 * its own target has, before it inlines it anywhere. */
#define load NAME(load)
#define store NAME(store)
#define load_half NAME(load_half)
#define store_half NAME(store_half)
#define words_of NAME(words_of)
#define halves_of NAME(halves_of)
#define widen NAME(widen)
#define whole NAME(whole)
#define narrow NAME(narrow)
#define all NAME(all)
#define load_part NAME(load_part)
#define load_half_part NAME(load_half_part)
#define store_part NAME(store_part)
#define store_half_part NAME(store_half_part)
#define pick NAME(pick)
#define fold8 NAME(fold8)
#define fold4 NAME(fold4)
#define fold2 NAME(fold2)
#define fold1 NAME(fold1)
#define sums NAME(sums)
#define shuffled NAME(shuffled)
#define transpose NAME(transpose)
#define sum NAME(sum)
#define larger_of NAME(larger_of)
#define largest NAME(largest)
#define decayed NAME(decayed)
#define exponential NAME(exponential)

/* Elements of either type, as float32 in the registers; the parts are the first `count`, others zero or left alone. */
#define get(at) _Generic((at), const float *: load, float *: load, const bf16 *: load_half, bf16 *: load_half)(at)
#define put(at, x) _Generic((at), float *: store, bf16 *: store_half)(at, x)
#define get_part(at, count) \
    _Generic((at), const float *: load_part, float *: load_part, const bf16 *: load_half_part, \
             bf16 *: load_half_part)(at, count)
#define put_part(at, x, count) _Generic((at), float *: store_part, bf16 *: store_half_part)(at, x, count)

#endif
