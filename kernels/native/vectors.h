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

INLINE vec load(const float *at) {
    vec x;
    memcpy(&x, at, sizeof x);
    return x;
}

INLINE void store(float *at, vec x) { memcpy(at, &x, sizeof x); }

INLINE vec all(float x) { return x - (vec){0}; }

/* The first `count` lanes, the others zero. */
INLINE vec load_part(const float *at, size_t count) {
    vec x = {0};
    memcpy(&x, at, 4 * count);
    return x;
}

INLINE vec pick(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }

#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})

/* One level of `sums`: halves, quarters, ... of two vectors' lanes, added up. */
INLINE vec fold8(vec a, vec b) {
    return SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

INLINE vec fold4(vec a, vec b) {
    return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

INLINE vec fold2(vec a, vec b) {
    return SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
           SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
}

INLINE vec fold1(vec a, vec b) {
    return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

/* Lane i of the result is the sum over the lanes of x[i]. */
INLINE vec sums(vec x[LANES]) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) x[i] = fold8(x[2 * i], x[2 * i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) x[i] = fold4(x[2 * i], x[2 * i + 1]);
    return fold1(fold2(x[0], x[1]), fold2(x[2], x[3]));
}

INLINE float sum(vec x) {
    x = fold8(x, x);
    x = fold4(x, x);
    x = fold2(x, x);
    return x[0] + x[1];
}

INLINE float largest(vec x) {
    float best = x[0];
    for (int i = 1; i < LANES; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/* e^x to about two units in the last place; 0 below -87, infinite above 88. The range is reduced to
 * [-ln 2 / 2, ln 2 / 2] (Cody and Waite), where a polynomial does (coefficients of Cephes' expf). */
INLINE vec exponential(vec x) {
    const ivec gone = x < all(-87.0f);
    x = pick(gone, all(0.0f), x);
    x = pick(x > all(88.0f), all(89.0f), x); /* whose power of two is infinite */
    const vec shifted = x * all(1.44269504088896341f) + all(12582912.0f); /* 1.5 * 2^23: the last bits are an integer */
    const vec n = shifted - all(12582912.0f);
    const vec r = x - n * all(0.693359375f) - n * all(-2.12194440e-4f);
    vec y = all(1.9875691500e-4f);
    y = y * r + all(1.3981999507e-3f);
    y = y * r + all(8.3334519073e-3f);
    y = y * r + all(4.1665795894e-2f);
    y = y * r + all(1.6666665459e-1f);
    y = y * r + all(5.0000001201e-1f);
    y = y * r * r + r + all(1.0f);
    const vec power = (vec)(((ivec)shifted << 23) + 0x3f800000);
    return pick(gone, all(0.0f), y * power);
}

#endif
