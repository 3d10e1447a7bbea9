/* How fast this machine's cores multiply and read, all of them at once, with nothing in the way: a process for each core
 * prints operations a second in vectors (two for each multiplication with its addition), and bytes read a second.
 *
 * rates SECONDS MEBIBYTES: of each measurement, and of memory that each process reads over and over. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS 20000
#define CHAINS 12 /* that do not wait for each other: more than an instruction takes cycles */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

#define DOT(i) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" #i "\n"
#define FMA(i) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" #i "\n"
#define FMA_AVX2(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n"
#define USES "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14", "xmm15"

static double operations(double seconds, int kind) {
    static const int each[] = {64, 32, 16};
    const double begun = now();
    double rounds = 0, end;
    asm volatile("vzeroall" : : : USES); /* numbers that are too small for a float would take longer */
    do {
        for (int i = 0; i < ROUNDS; i++) {
            if (kind == 0) asm volatile(EACH(DOT) : : : USES);
            else if (kind == 1) asm volatile(EACH(FMA) : : : USES);
            else asm volatile(EACH(FMA_AVX2) : : : USES);
        }
        rounds += ROUNDS;
        end = now();
    } while (end - begun < seconds);
    return rounds * CHAINS * each[kind] / (end - begun);
}

__attribute__((target("avx2"))) static double bytes(double seconds, size_t size) {
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) exit(1);
    madvise(memory, size, MADV_HUGEPAGE);
    memset(memory, 1, size);
    const double begun = now();
    double turns = 0, end;
    do {
        __m256i sum[4] = {0};
        for (size_t at = 0; at < size; at += 128)
            for (int i = 0; i < 4; i++)
                sum[i] = _mm256_xor_si256(sum[i], _mm256_load_si256((const __m256i *)(memory + at) + i));
        asm volatile("" : : "x"(sum[0]), "x"(sum[1]), "x"(sum[2]), "x"(sum[3]));
        turns++;
        end = now();
    } while (end - begun < seconds);
    return turns * size / (end - begun);
}

int main(int count, char **given) {
    if (count != 3) return 2;
    const double seconds = atof(given[1]);
    __builtin_cpu_init();
    const int wide = __builtin_cpu_supports("avx512f");
    const double floats = operations(seconds, wide ? 1 : 2);
    const double halves = __builtin_cpu_supports("avx512bf16") ? operations(seconds, 0) : 0;
    printf("%.6e %.6e %.6e\n", floats, halves, bytes(seconds, strtoull(given[2], NULL, 10) << 20));
    return 0;
}
