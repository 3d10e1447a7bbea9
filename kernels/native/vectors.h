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

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})

/* The functions of vectors.inc are made anew for each instruction set: the compiler lowers a function's vectors to what
 * its own target has, before it inlines it anywhere. */
#define load NAME(load)
#define store NAME(store)
#define all NAME(all)
#define load_part NAME(load_part)
#define pick NAME(pick)
#define fold8 NAME(fold8)
#define fold4 NAME(fold4)
#define fold2 NAME(fold2)
#define fold1 NAME(fold1)
#define sums NAME(sums)
#define sum NAME(sum)
#define largest NAME(largest)
#define exponential NAME(exponential)

#endif
