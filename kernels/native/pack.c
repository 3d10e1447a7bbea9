/* Weights as products take them (kernels.h). Done once, when they are loaded. */
#include <string.h>

#include "kernels.h"

/* Words of 32 bits that the inputs of one output take: one float, or two bfloat16. */
static size_t words_of(Type type, size_t inputs) {
    return type == FLOAT32 ? inputs : (inputs + TILE_INPUTS - 1) / TILE_INPUTS * (TILE_INPUTS / 2);
}

size_t packed_elements(Type type, size_t outputs, size_t inputs) {
    const size_t blocks = (outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS;
    return blocks * BLOCK_OUTPUTS * words_of(type, inputs) * 4 / size_of(type);
}

void pack(Type type, const void *weight, void *packed, size_t outputs, size_t inputs) {
    const size_t bytes = inputs * size_of(type), words = words_of(type, inputs);
    memset(packed, 0, packed_elements(type, outputs, inputs) * size_of(type));
    for (size_t output = 0; output < outputs; output++) {
        const char *from = (const char *)weight + output * bytes;
        uint32_t *into = (uint32_t *)packed + output / BLOCK_OUTPUTS * BLOCK_OUTPUTS * words + output % BLOCK_OUTPUTS;
        for (size_t at = 0; at < bytes; at += 4, into += BLOCK_OUTPUTS) memcpy(into, from + at, bytes - at < 4 ? 2 : 4);
    }
}
