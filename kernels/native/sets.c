/* The instruction sets that the operations are compiled for, and the choice of the best one that the processor has: one
 * file serves all machines of an architecture. */
#include "kernels.h"

#include <string.h>

#include "places.h"
#include "vectors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define NAME(name) name##_avx512
#define ROWS_AT_ONCE 8
#define AVX512 1
#include "types.inc"
#undef AVX512
#undef TARGET
#undef NAME
#undef ROWS_AT_ONCE
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(name) name##_avx2
#define ROWS_AT_ONCE 2
#include "types.inc"
#undef TARGET
#undef NAME
#undef ROWS_AT_ONCE
#endif
#define TARGET
#define NAME(name) name##_plain
#define ROWS_AT_ONCE 2
#include "types.inc"
#undef TARGET
#undef NAME
#undef ROWS_AT_ONCE

#if defined(__x86_64__) && defined(__linux__) && __GNUC__ >= 12
#define MATRIX_UNITS 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AVX512 1

#define ELEMENT bf16
#define WORDS(inputs) (((inputs) + TILE_INPUTS - 1) / TILE_INPUTS * (TILE_INPUTS / 2))

/* Only products and attention have more to gain from these two. */
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")))
#define NAME(name) name##_avx512_bf16
#define TYPED(name) NAME(name)
#define ROWS_AT_ONCE 8
#define ADVANCE(total, x, w) ((vec)_mm512_dpbf16_ps((__m512)(total), (__m512bh)(x), (__m512bh)(w)))
#define NARROW_BOTH(low, high) ((ivec)_mm512_cvtne2ps_pbh((__m512)(high), (__m512)(low)))
#define widen_words_avx512_bf16 widen_words_bfloat16_avx512_bf16
#include "vectors.inc"
#include "widen.inc"
#include "matmul_finish.inc"
#include "matmul.inc"
#include "softmax.inc"
#include "attention_dots.inc"
#undef TARGET
#undef NAME
#define TARGET \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,avx2,fma")))
#define NAME(name) name##_amx
#include "vectors.inc"
#include "matmul_finish.inc"
#include "softmax.inc"
#include "matmul_amx.inc"
#include "attention_amx.inc"
#endif

#define TABLE(set, type) {attend_##type##_##set, add_rms_norm_##type##_##set, swiglu_##type##_##set, \
                          rope_kv_write_##type##_##set, multiply_##type##_##set, multiply_8bit_##type##_##set, widen_weights_##type##_##set, \
                          sum_parts_##type##_##set}
#define TABLES(set) {TABLE(set, float32), TABLE(set, bfloat16)}

typedef struct {
    const char *name;
    Kernels kernels[TYPES];
} Set;

static Set sets[5];
static int set_count;
static Set current;

#if defined(MATRIX_UNITS)
#define LEAF_7_BF16 (1u << 5)                  /* eax of subleaf 1 */
#define LEAF_7_TILES (1u << 22 | 1u << 24)     /* edx of subleaf 0: AMX-BF16, AMX-TILE */
#define REQUEST_STATE 0x1023                   /* ARCH_REQ_XCOMP_PERM */
#define TILE_DATA 18                           /* XFEATURE_XTILEDATA */

static void find_matrix_units(const Set *base) {
    unsigned a, b, c, d, dots;
    if (!__get_cpuid_count(7, 1, &dots, &b, &c, &d) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    if (!(dots & LEAF_7_BF16)) return;
    /* Linux gives a process tiles when it asks for them. */
    if ((d & LEAF_7_TILES) == LEAF_7_TILES && syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0) {
        sets[set_count] = *base;
        sets[set_count].name = "amx_bf16";
        sets[set_count].kernels[BFLOAT16].attend = attend_amx;
        sets[set_count].kernels[BFLOAT16].multiply_8bit = NULL; /* tiles sum in another order */
        sets[set_count].kernels[BFLOAT16].widen_weights = widen_weights_bfloat16_avx512_bf16;
        sets[set_count++].kernels[BFLOAT16].multiply = multiply_amx;
    }
    sets[set_count] = *base;
    sets[set_count].name = "avx512_bf16";
    sets[set_count].kernels[BFLOAT16].attend = attend_avx512_bf16;
    sets[set_count].kernels[BFLOAT16].widen_weights = widen_weights_bfloat16_avx512_bf16;
    sets[set_count].kernels[BFLOAT16].multiply_8bit = multiply_8bit_avx512_bf16;
    sets[set_count++].kernels[BFLOAT16].multiply = multiply_avx512_bf16;
}
#endif

void find_sets(void) {
    set_count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        const Set avx512 = {"avx512", TABLES(avx512)};
#if defined(MATRIX_UNITS)
        find_matrix_units(&avx512);
#endif
        sets[set_count++] = avx512;
    }
    if (fma) sets[set_count++] = (Set){"avx2", TABLES(avx2)};
#endif
    sets[set_count++] = (Set){"plain", TABLES(plain)};
    current = sets[0];
}

const char *set_name(int index) { return index < set_count ? sets[index].name : NULL; }

int use_set(const char *name) {
    for (int i = 0; i < set_count; i++) {
        if (strcmp(sets[i].name, name) == 0) {
            current = sets[i];
            return 1;
        }
    }
    return 0;
}

const Kernels *kernels_of(Type type) { return &current.kernels[type]; }
