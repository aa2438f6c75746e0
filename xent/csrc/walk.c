/* walk.c: how kernels walk the arrays of a call. Axes besides the class axis whose neighbours are evenly spaced in all
 * arrays count as one, an axis of one element counts as none; what is left must be two outer axes and an inner one at
 * most.
 */
#include "base.h"
#include "softmax/tile_sizes.h"
#include "table.h"

#include <stdint.h>
#include <string.h>

enum { MOST_OPERANDS = XENT_LOSS_OPERANDS };

/* Arrays of one shape, where a kernel wants to find them, and the axes along which they are walked. */
typedef struct {
    int operands, axes;
    const xent_array *array[MOST_OPERANDS];
    xent_operand *operand[MOST_OPERANDS];
    ptrdiff_t count[XENT_MOST_AXES];
    ptrdiff_t step[MOST_OPERANDS][XENT_MOST_AXES]; /* bytes between neighbours */
} walk;

static void add_operand(walk *w, const xent_array *array, xent_operand *operand)
{
    if (!array) return;
    w->array[w->operands] = array, w->operand[w->operands] = operand;
    w->operands++;
}

/* Whether address and strides are multiples of the itemsize (a power of two, and the alignment): all elements lie whole
 * steps apart. */
static int is_aligned(const xent_array *a)
{
    uintptr_t bits = (uintptr_t)a->data;
    for (int k = 0; k < a->ndim; k++)
        if (a->shape[k] > 1) bits |= (uintptr_t)a->strides[k];
    return bits % (uintptr_t)a->itemsize == 0;
}

/* The product of all sizes but that of `axis`. */
static ptrdiff_t size_besides(const xent_array *a, int axis)
{
    ptrdiff_t size = 1;
    for (int k = 0; k < a->ndim; k++)
        if (k != axis) size *= a->shape[k];
    return size;
}

/* Find the axes besides `axis`. 0 where there are more than three, or elements are not aligned. */
static int coalesce_axes(walk *w, int axis)
{
    const xent_array *first = w->array[0];
    w->axes = 0;
    for (int k = 0; k < first->ndim; k++) {
        const ptrdiff_t size = first->shape[k];
        if (k == axis || size == 1) continue;
        int evenly = w->axes > 0;
        for (int n = 0; n < w->operands; n++)
            evenly = evenly && w->step[n][w->axes - 1] == w->array[n]->strides[k] * size;
        if (!evenly) w->count[w->axes++] = 1;
        w->count[w->axes - 1] *= size;
        for (int n = 0; n < w->operands; n++) w->step[n][w->axes - 1] = w->array[n]->strides[k];
    }
    for (int n = 0; n < w->operands; n++)
        if (!is_aligned(w->array[n])) return 0;
    return w->axes <= 3;
}

/* Where operand n begins, and its strides along two axes, of which `middle` is the second; an axis that it lacks has
 * none. */
static void fill_operand(const walk *w, int n, int middle)
{
    const ptrdiff_t itemsize = w->array[n]->itemsize;
    xent_operand *operand = w->operand[n];
    operand->data = w->array[n]->data;
    operand->middle_stride = middle >= 0 ? w->step[n][middle] / itemsize : 0;
    operand->outer_stride = middle >= 1 ? w->step[n][middle - 1] / itemsize : 0;
}

/* See the arrays as (outer, middle, classes, inner), all in the same way: as rows, whose classes are neighbours in
 * memory, or as columns, whose positions are. 0 where they do not lie so. Classes of the first `loose` arrays of rows may
 * lie anyhow. */
static int lay_positions(xent_positions *p, walk *w, int axis, int loose)
{
    int is_rows = 1, is_columns, axes;
    if (!coalesce_axes(w, axis)) return 0;
    axes = w->axes, is_columns = axes > 0;
    for (int n = 0; n < w->operands; n++) {
        const ptrdiff_t itemsize = w->array[n]->itemsize, stride = w->array[n]->strides[axis];
        is_rows = is_rows && (n < loose || p->classes <= 1 || stride == itemsize);
        is_columns = is_columns && w->step[n][axes - 1] == itemsize;
        w->operand[n]->stride = stride / itemsize;
    }
    if (!is_rows) {
        if (!is_columns) return 0;
        p->inner = w->count[--axes];
    }
    if (axes > 2) return 0;
    p->middle_count = axes ? w->count[axes - 1] : 1;
    for (int n = 0; n < w->operands; n++) fill_operand(w, n, axes - 1);
    return 1;
}

static int walk_loosely(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                        const xent_array *hess, int axis, int loose)
{
    walk w;
    memset(p, 0, sizeof *p);
    p->temperature = 1;
    p->classes = x->shape[axis];
    p->count = size_besides(x, axis);
    p->inner = p->middle_count = 1;
    if (p->count * p->classes == 0) { /* nothing to walk, and strides that mean nothing */
        p->middle_count = xent_max(p->count, 1);
        return 1;
    }
    w.operands = 0;
    add_operand(&w, x, &p->x);
    add_operand(&w, target, &p->target);
    add_operand(&w, out, &p->out);
    add_operand(&w, hess, &p->hess);
    p->packs = target || hess;
    return lay_positions(p, &w, axis, loose);
}

int xent_walk_positions(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                        const xent_array *hess, int axis)
{
    return walk_loosely(p, x, target, out, hess, axis, 0);
}

/* Short rows gain nothing. Further apart, each class has a cache line of its own, and a copy reads these in a better
 * order. */
int xent_walk_apart(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                    const xent_array *hess, int axis)
{
    if (xent_walk_positions(p, x, target, out, hess, axis)) return 1;
    if (x->itemsize < (ptrdiff_t)sizeof(float) || !walk_loosely(p, x, target, out, hess, axis, 1)) return 0;
    p->transformed = 1;
    return p->classes > TRANSPOSED_BYTES / LINE_COLUMNS / x->itemsize && p->x.stride > 1 &&
           p->x.stride * x->itemsize < CACHE_LINE;
}

int xent_walk_labels(xent_positions *p, const xent_array *x, const xent_array *out, int axis)
{
    walk w = {.operands = 0};
    if (xent_walk_positions(p, x, NULL, out, NULL, axis)) return 1;
    add_operand(&w, x, &p->x);
    add_operand(&w, out, &p->out);
    return lay_positions(p, &w, axis, 1);
}

/* See the arrays as rows. The stride along them is one element, or, of the weights, none at all. */
static int lay_rows(xent_element_losses_args *a, walk *w)
{
    if (!coalesce_axes(w, -1)) return 0;
    const int last = w->axes - 1;
    a->length = last >= 0 ? w->count[last] : 1;
    a->middle_count = last >= 1 ? w->count[last - 1] : 1;
    a->rows = a->middle_count * (last >= 2 ? w->count[last - 2] : 1);
    for (int n = 0; n < w->operands; n++) {
        xent_operand *operand = w->operand[n];
        fill_operand(w, n, last - 1);
        operand->stride = last >= 0 ? w->step[n][last] / w->array[n]->itemsize : 1;
        if (operand->stride != 1 && !(operand == &a->weight && operand->stride == 0)) return 0;
    }
    return 1;
}

int xent_walk_elements(xent_element_losses_args *a, const xent_array *const operands[XENT_LOSS_OPERANDS])
{
    walk w;
    memset(a, 0, sizeof *a);
    a->middle_count = 1;
    if (size_besides(operands[0], -1) == 0) return 1;
    xent_operand *const places[] = {&a->x, &a->target, &a->weight, &a->upstream, &a->out, &a->losses};
    w.operands = 0;
    for (int n = 0; n < XENT_LOSS_OPERANDS; n++) add_operand(&w, operands[n], places[n]);
    return lay_rows(a, &w);
}
