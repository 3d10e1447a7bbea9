/* Products with weights of 8 bits (kernels.h). */
#include "kernels.h"

#define BLOCKS_AT_ONCE 2 /* as many as products take together */
#define FEW_ROWS 16      /* for which numbers are widened as they are read */

size_t whole_room(Type type, size_t inputs) {
    return packed_elements(type, BLOCKS_AT_ONCE * BLOCK_OUTPUTS, inputs) * size_of(type);
}

void multiply_whole(Type type, const Product *p, void *room) {
    const Kernels *k = kernels_of(type);
    if (p->rows <= FEW_ROWS && k->multiply_8bit != NULL) {
        k->multiply_8bit(p);
        return;
    }
    const size_t most = BLOCKS_AT_ONCE * BLOCK_OUTPUTS, wide = p->wide ? sizeof(float) : size_of(type);
    const int8_t *weight = p->weight;
    for (size_t at = 0; at < p->outputs; at += most) {
        Product part = *p;
        part.weight = room;
        part.outputs = p->outputs - at < most ? p->outputs - at : most;
        part.scales = p->scales + at;
        part.bias = p->bias == NULL ? NULL : p->bias + at;
        part.out = (char *)p->out + at * wide;
        const size_t elements = packed_elements(type, part.outputs, p->inputs);
        k->widen_weights(weight, room, elements);
        weight += elements;
        k->multiply(&part);
    }
}
