/* headway.kernels.native._native: the operations on CPU tensors, by address. Its callers check types, shapes and
 * contiguity; pages, slots and positions are checked here. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <pthread.h>
#include <stdlib.h>

#include "exchange.h"
#include "kernels.h"
#include "program.h"

#define INTERFACE 3 /* as in __init__.py: one more whenever what a function takes, or what it means, changes */

static PyObject *instruction_sets(PyObject *self, PyObject *args) {
    PyObject *names = PyList_New(0);
    for (int i = 0; names != NULL && set_name(i) != NULL; i++) {
        PyObject *name = PyUnicode_FromString(set_name(i));
        if (name == NULL || PyList_Append(names, name) < 0) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *use(PyObject *self, PyObject *args) {
    const char *name;
    if (!PyArg_ParseTuple(args, "s:use", &name)) return NULL;
    if (!use_set(name)) return PyErr_Format(PyExc_ValueError, "this processor has no instruction set %s", name);
    Py_RETURN_NONE;
}

/* For "O&": what callers of the module name types by. */
static int to_type(PyObject *given, void *type) {
    const long value = PyLong_AsLong(given);
    if (value >= 0 && value < TYPES) {
        *(Type *)type = (Type)value;
        return 1;
    }
    if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "%ld is no type", value);
    return 0;
}

#define ALIGNMENT 64
#define EXTRA_TOKENS 32 /* 2 * LANES */
#define LITTLE (1 << 15) /* elements: some ten microseconds, for which other threads can wait */

/* Memory that a thread keeps for its next call, and gives back when it ends. Its first word is how much there is. */
static pthread_key_t kept;

static char *scratch(size_t bytes) {
    size_t *have = pthread_getspecific(kept);
    if (have == NULL || *have < bytes) {
        void *made;
        free(have);
        pthread_setspecific(kept, NULL);
        if (posix_memalign(&made, ALIGNMENT, ALIGNMENT + 2 * bytes) != 0) return NULL;
        if (pthread_setspecific(kept, made) != 0) {
            free(made);
            return NULL;
        }
        have = made;
        *have = 2 * bytes;
    }
    return (char *)have + ALIGNMENT;
}

/* Lets other threads of Python run during a long operation: `lock` is given what this returned. */
static PyThreadState *unlock(size_t elements) { return elements > LITTLE ? PyEval_SaveThread() : NULL; }

static void lock(PyThreadState *state) {
    if (state != NULL) PyEval_RestoreThread(state);
}

/* Whether the row's queries are among the tokens, and its context in its table. */
static int has_room(const Attention *a, size_t row, size_t tokens) {
    const int32_t first = a->rows[3 * row], queries = a->rows[3 * row + 1], context = a->rows[3 * row + 2];
    if (first < 0 || queries < 0 || context < queries || (size_t)first + queries > tokens) return 0;
    return (size_t)context <= a->width * a->page_size;
}

/* Whether every page that the row's queries see lies in the cache: a wrong table is an error, as in torch, no wild read. */
static int has_pages(const Attention *a, size_t row) {
    const int32_t *described = a->rows + 3 * row, *table = a->tables + row * a->width;
    const size_t queries = described[1], context = described[2];
    if (queries == 0) return 1;
    const size_t hidden = a->window + queries - 1;
    const size_t first = a->window && context > hidden ? context - hidden : 0;
    int32_t least = 0, most = 0;
    for (size_t page = first / a->page_size; page * a->page_size < context; page++) {
        least = table[page] < least ? table[page] : least;
        most = table[page] > most ? table[page] : most;
    }
    return least >= 0 && (size_t)most < a->pages;
}

static PyObject *attend(PyObject *self, PyObject *args) {
    Attention a;
    Type type;
    unsigned long long query, keys, values, tables, rows, out;
    Py_ssize_t tokens;
    if (!PyArg_ParseTuple(args, "O&KKKKKKnnnnnnnnnf:attend", to_type, &type, &query, &keys, &values, &tables, &rows, &out, &tokens,
                          &a.count, &a.width, &a.pages, &a.page_size, &a.kv_heads, &a.shared, &a.head_dim, &a.window, &a.scale))
        return NULL;
    a.query = (const void *)query;
    a.keys = (const void *)keys;
    a.values = (const void *)values;
    a.tables = (const int32_t *)tables;
    a.rows = (const int32_t *)rows;
    a.out = (void *)out;
    size_t longest = 0;
    for (size_t row = 0; row < a.count; row++) {
        if (!has_room(&a, row, tokens)) {
            const int32_t *r = a.rows + 3 * row;
            return PyErr_Format(PyExc_IndexError, "row %zu: %d queries from token %d of %zd, a context of %d in %zu pages of %zu",
                                row, (int)r[1], (int)r[0], tokens, (int)r[2], a.width, a.page_size);
        }
        const size_t context = a.rows[3 * row + 2];
        longest = context > longest ? context : longest;
        if (!has_pages(&a, row)) return PyErr_Format(PyExc_IndexError, "row %zu: a page that is not in the cache", row);
    }
    longest += EXTRA_TOKENS;
    char *memory = scratch(longest * (sizeof(size_t) + BLOCK_LANES * sizeof(float)));
    if (memory == NULL) return PyErr_NoMemory();
    void (*const chosen)(const Attention *, float *, size_t *) = kernels_of(type)->attend;
    Py_BEGIN_ALLOW_THREADS
    chosen(&a, (float *)memory, (size_t *)(memory + longest * BLOCK_LANES * sizeof(float)));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *add_rms_norm(PyObject *self, PyObject *args) {
    Type type;
    unsigned long long x, residual, weight, out;
    Py_ssize_t rows, size;
    float eps;
    if (!PyArg_ParseTuple(args, "O&KKKKnnf:add_rms_norm", to_type, &type, &x, &residual, &weight, &out, &rows, &size,
                          &eps))
        return NULL;
    const Kernels *chosen = kernels_of(type);
    PyThreadState *state = unlock((size_t)rows * size);
    chosen->add_rms_norm((const void *)x, (void *)residual, (const float *)weight, (void *)out, rows, size, eps);
    lock(state);
    Py_RETURN_NONE;
}

static PyObject *swiglu(PyObject *self, PyObject *args) {
    Type type;
    unsigned long long gate_up, out;
    Py_ssize_t rows, width;
    if (!PyArg_ParseTuple(args, "O&KKnn:swiglu", to_type, &type, &gate_up, &out, &rows, &width)) return NULL;
    const Kernels *chosen = kernels_of(type);
    PyThreadState *state = unlock((size_t)rows * width);
    chosen->swiglu((const void *)gate_up, (void *)out, rows, width);
    lock(state);
    Py_RETURN_NONE;
}

static PyObject *rope_kv_write(PyObject *self, PyObject *args) {
    Rope r;
    Type type;
    unsigned long long qkv, cos, sin, positions, slots, query, keys, values, query_norm, key_norm;
    if (!PyArg_ParseTuple(args, "O&KKKKKKKKKKnnnnnnnf:rope_kv_write", to_type, &type, &qkv, &cos, &sin, &positions, &slots,
                          &query, &keys, &values, &query_norm, &key_norm, &r.tokens, &r.turns, &r.places, &r.heads, &r.kv_heads,
                          &r.head_dim, &r.dims, &r.eps))
        return NULL;
    r.qkv = (const void *)qkv;
    r.cos = (const float *)cos;
    r.sin = (const float *)sin;
    r.positions = (const int64_t *)positions;
    r.slots = (const int64_t *)slots;
    r.query = (void *)query;
    r.keys = (void *)keys;
    r.values = (void *)values;
    r.query_norm = (const float *)query_norm;
    r.key_norm = (const float *)key_norm;
    for (size_t token = 0; token < r.tokens; token++) {
        const uint64_t position = r.positions[token], slot = r.slots[token]; /* below zero: far above */
        if (position >= r.turns || slot >= r.places)
            return PyErr_Format(PyExc_IndexError, "token %zu: position %lld of %zu, slot %lld of %zu", token,
                                (long long)r.positions[token], r.turns, (long long)r.slots[token], r.places);
    }
    const Kernels *chosen = kernels_of(type);
    PyThreadState *state = unlock(r.tokens * (r.heads + 2 * r.kv_heads) * r.head_dim);
    chosen->rope_kv_write(&r);
    lock(state);
    Py_RETURN_NONE;
}

static PyObject *packed_size(PyObject *self, PyObject *args) {
    Type type;
    Py_ssize_t outputs, inputs;
    if (!PyArg_ParseTuple(args, "O&nn:packed_size", to_type, &type, &outputs, &inputs)) return NULL;
    return PyLong_FromSize_t(packed_elements(type, outputs, inputs));
}

static PyObject *pack_weight(PyObject *self, PyObject *args) {
    Type type;
    unsigned long long weight, packed;
    Py_ssize_t outputs, inputs;
    if (!PyArg_ParseTuple(args, "O&KKnn:pack", to_type, &type, &weight, &packed, &outputs, &inputs)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    pack(type, (const void *)weight, (void *)packed, outputs, inputs);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *multiply(PyObject *self, PyObject *args) {
    Product p;
    Type type;
    unsigned long long x, weight, scales, bias, out;
    if (!PyArg_ParseTuple(args, "O&KKKKKnnnp:multiply", to_type, &type, &x, &weight, &scales, &bias, &out, &p.rows,
                          &p.inputs, &p.outputs, &p.wide))
        return NULL;
    p.x = (const void *)x;
    p.weight = (const void *)weight;
    p.scales = (const float *)scales;
    p.pitch = p.outputs;
    p.bias = (const float *)bias;
    p.out = (void *)out;
    const Kernels *chosen = kernels_of(type);
    char *room = p.scales == NULL ? NULL : scratch(whole_room(type, p.inputs));
    if (p.scales != NULL && room == NULL) return PyErr_NoMemory();
    PyThreadState *state = unlock(p.inputs * p.outputs / 4);
    if (room == NULL) chosen->multiply(&p);
    else multiply_whole(type, &p, room);
    lock(state);
    Py_RETURN_NONE;
}

#include "exchange_module.inc"
#include "program_module.inc"

static PyMethodDef methods[] = {{"instruction_sets", instruction_sets, METH_NOARGS, NULL},
                                {"use", use, METH_VARARGS, NULL},
                                {"attend", attend, METH_VARARGS, NULL},
                                {"add_rms_norm", add_rms_norm, METH_VARARGS, NULL},
                                {"swiglu", swiglu, METH_VARARGS, NULL},
                                {"rope_kv_write", rope_kv_write, METH_VARARGS, NULL},
                                {"exchange", exchange, METH_VARARGS, NULL},
                                {"set_timeout", set_timeout, METH_VARARGS, NULL},
                                {"sum_over_ranks", sum_over_ranks, METH_VARARGS, NULL},
                                {"gather_over_ranks", gather_over_ranks, METH_VARARGS, NULL},
                                {"packed_size", packed_size, METH_VARARGS, NULL},
                                {"pack", pack_weight, METH_VARARGS, NULL},
                                {"multiply", multiply, METH_VARARGS, NULL},
                                {"program", program, METH_VARARGS, NULL},
                                {"add_layer", add_layer, METH_VARARGS, NULL},
                                {"set_embedding", set_embedding, METH_VARARGS, NULL},
                                {"set_head", set_head, METH_VARARGS, NULL},
                                {"run_program", run_program, METH_VARARGS, NULL},
                                {"run_rows", run_rows, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods};

PyMODINIT_FUNC PyInit__native(void) {
    if (pthread_key_create(&kept, free) != 0) return PyErr_NoMemory();
    find_sets();
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0) Py_CLEAR(module);
    return module;
}
