/* table.h: what the bridge (_kernels.pyx) and the kernels agree on: dtype codes, the table of kernels of one instruction
 * set, and the argument structures. Sizes and strides count elements, not bytes; all are ptrdiff_t.
 */
#ifndef XENT_TABLE_H
#define XENT_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Codes of the element types. A kernel that a type does not have is NULL in the table. */
enum { XENT_F32, XENT_F64, XENT_F16, XENT_BF16, XENT_DTYPES };

/* Work chunk number `chunk`; chunks depend on shapes alone and may run in any order, on any thread. `scratch` is this
 * thread's own memory, of the size that the bridge asked for, or NULL. */
typedef void (*xent_kernel)(const void *args, ptrdiff_t chunk, void *scratch);

typedef struct {
    const char *name; /* of the instruction set */
    int vector_bytes, strip_bytes; /* of the output channels that one product takes at a time: some vectors */
#define X(kernel) xent_kernel kernel[XENT_DTYPES];
#define X16 X
#include "kernels.def"
#undef X
#undef X16
    /* Arithmetic of its own, exposed so that tests can measure it: y[i] = f(x[i]). */
    void (*exp_f32)(const float *, float *, ptrdiff_t);
    void (*exp_f64)(const double *, double *, ptrdiff_t);
    void (*log_f32)(const float *, float *, ptrdiff_t);
    void (*log_f64)(const double *, double *, ptrdiff_t);
    void (*log1p_f32)(const float *, float *, ptrdiff_t);
    void (*log1p_f64)(const double *, double *, ptrdiff_t);
} xent_table;

/* dispatch.c */
const xent_table *xent_find(const char *name);              /* NULL if it was not built or cannot run here */
const char *xent_isa_name(int index, int *usable);          /* every set that was built, best last; NULL past the end */

/* threads.c */
int xent_max_threads(void);
int xent_forked(void); /* 1 in a child of fork(), whose OpenMP threads are gone */
int xent_watch_forks(void);

/* One array seen as (far, per, classes, inner): position p = (f * per + o) * inner + i, class c lies at
 * data[f * far + o * outer + c * stride + i]. inner > 1 means that neighbouring positions are neighbours in memory. Two outer axes
 * let a slice such as logits[:, :-1] be walked where it lies. */
typedef struct {
    void *data;
    ptrdiff_t far, outer, stride;
} xent_operand;

enum { SUMS = 4 }; /* of a chunk, at most */

/* The softmax family and cross-entropy. */
typedef struct {
    ptrdiff_t positions, inner, per, classes;
    ptrdiff_t chunk;                            /* positions per chunk */
    ptrdiff_t room;                             /* exponentials that the scratch of a thread holds; if `transformed`, all its numbers */
    xent_operand x, aux, out;                   /* logits or y; incoming gradient or probability target; result */
    xent_operand second;                        /* second derivatives */
    void *per_position;                         /* logsumexps or losses, of the type of losses; may be NULL */
    int single;                                 /* losses are floats, else doubles */
    double *partial;                            /* `sums` numbers of each chunk: the sum of the losses is the first */
    int sums;
    /* u = x / temperature, then cap tanh(u / cap) unless cap is 0, then + offset[c] unless that is NULL; `transformed` where any is in
     * use (transform.h). */
    int transformed;
    double temperature, cap;
    const void *offset;                         /* of the real type: a number per class, and then what rounding left of each */
    /* cross-entropy: the target of a position is u_c = w_c (mix * t_c + base), plus `peak` * w_y at label y. */
    const int64_t *label;                       /* one per position, or NULL */
    int64_t ignore_index;
    const void *weight;                         /* one per class, of the real type, or NULL */
    const double *label_weight;                 /* the same in double */
    double mix, base, peak;
    double z_loss, gamma;                       /* + z_loss logsumexp^2; the label's term times (1 - p_y)^gamma */
    const double *sample;                       /* one factor per position, of loss and gradient, or NULL */
    double gradient_scale;                      /* multiplies every gradient */
    const double *upstream;                     /* and one factor per position, or NULL */
    double curvature;                           /* factor of p (1 - p) in the second derivatives; 0: they are |gradient| */
    /* evaluation (evaluate.h) */
    int evaluates;
    int64_t *rank;                              /* classes before the label's, one per position, or NULL: at most */
    int64_t most;                               /* this, which ignored positions have */
    /* losses of probabilities (probabilities.h) */
    int loss;                                   /* which; one of the codes below */
    double unit;                                /* divides every loss */
    double clip;                                /* bounds probabilities away from 0, or 0 */
    double factor;                              /* distillation: multiplies every loss */
} xent_softmax_args;

/* Codes of the losses that are sums of a function of two numbers. */
enum { XENT_MSE, XENT_BINARY_CROSS_ENTROPY, XENT_CROSS_ENTROPY, XENT_KL_DIV, XENT_KL_DIV_LOG, XENT_ENTROPY };

/* Losses of elements. All arrays have rows of `length` elements: row f * per + o begins at data[f * far + o * outer], where the next
 * element is `stride` (0 or 1) on. */
typedef struct {
    ptrdiff_t rows, per, length;
    ptrdiff_t piece, chunk;                     /* a chunk: so many elements of so many rows */
    xent_operand x, target, out;
    xent_operand weight, upstream, losses;      /* of the real type; data may be NULL */
    double *partial;                            /* sum of the losses of each chunk, or NULL if no loss is wanted */
    int loss;
    double unit, clip, gradient_scale;          /* as above */
} xent_loss_args;

/* Elementwise functions of contiguous arrays. */
typedef struct {
    ptrdiff_t size, chunk;
    const void *x;
    void *out;
} xent_map_args;

/* Targets of the sigmoid cross-entropy beside the element types: integers, of which the sign does not matter. */
enum { XENT_I8 = XENT_DTYPES, XENT_I16, XENT_I32, XENT_I64 };

/* Factors of the elements, of the type computed with: that of element i is data[i / repeat % count]; 1 without data. */
typedef struct {
    const void *data;
    ptrdiff_t repeat, count;
} xent_factor;

/* Sigmoid cross-entropy. Without `value` and `out` the targets are checked and counted, and that is all. */
typedef struct {
    ptrdiff_t size, chunk;
    const void *x, *target;
    int target_code;                        /* any integers, f32, f64 or the type of x */
    int ignoring;                           /* whether `ignore_index` is one of the integers; its bits */
    int64_t ignore_index;
    xent_factor weight, pos_weight, upstream;
    double mix, base;                       /* the target used: mix * t + base */
    double gamma, alpha_1, alpha_0;         /* alpha_t of t = 1 and t = 0 */
    double gradient_scale;
    int value;                              /* whether losses are wanted */
    void *out, *losses;                     /* the gradient; losses of the type computed with: NULL where not wanted */
    double *partial;                        /* sum of the losses of each chunk */
    int64_t *counted;                       /* elements of each chunk that are not ignored; -1: there is a bad target */
} xent_sigmoid_args;

/* The geometry of a sliding window over (height, width) images. */
typedef struct {
    ptrdiff_t height, width;           /* of the input image */
    ptrdiff_t kernel_h, kernel_w;
    ptrdiff_t stride_h, stride_w;
    ptrdiff_t dilation_h, dilation_w;
    ptrdiff_t top, left;               /* padding; right and bottom follow from the output's size */
    ptrdiff_t out_h, out_w;
} xent_window;

/* im2col and col2im; a chunk is one channel of one image. */
typedef struct {
    xent_window window;
    const void *x;
    void *out;
} xent_im2col_args;

/* The convolution kernels. A product has at most ROWS rows and WIDEST vectors of sums in registers (product.h). */
enum { ROWS = 6, WIDEST = 8 };

typedef struct {
    xent_window window;
    ptrdiff_t images, groups;
    ptrdiff_t in_channels, out_channels; /* per group */
    const void *x, *weight, *bias, *grad;
    void *packed;      /* the weights in the order of the products: (group, strip of output channels, step, channel) */
    void *out;
    int relu;
    /* Where output pixel (row, column) of a channel goes: out_first + row * out_row + column * out_step of out_size pixels. */
    ptrdiff_t out_size, out_first, out_row, out_step;
    /* Where weight (output channel, input channel, i, j) of a group comes from, relative to `weight`. */
    ptrdiff_t weight_first, weight_group, weight_out, weight_in, weight_i, weight_j;
    /* How the work is cut: xent_plan, layout.h. */
    int pixel_lanes;   /* lanes of the products are pixels, not output channels */
    ptrdiff_t width;   /* output channels of a strip */
    ptrdiff_t tile_images, tile_rows, tile_columns;
    ptrdiff_t block_channels, block_rows, block_columns;
    ptrdiff_t group_chunk, strip_chunk, tile_chunk; /* of one chunk; tiles of grad_weight only */
    ptrdiff_t patch_room, packed_room, sums_room, row_room, step_room; /* scratch, in numbers */
} xent_conv_args;

/* Sums in index order of `partials` arrays of `size` numbers that follow each other. */
typedef struct {
    ptrdiff_t size, partials, chunk;
    const void *x;
    void *out;
} xent_merge_args;

/* plan.c: fill in how the work is cut, for an element type and an instruction set; the number of chunks, and bytes of scratch. */
typedef struct {
    ptrdiff_t chunks, scratch, partials; /* partials: sums of grad_weight over different tiles */
} xent_plan;
xent_plan xent_plan_conv2d(xent_conv_args *a, const xent_table *table, int dtype);
xent_plan xent_plan_grad_weight(xent_conv_args *a, const xent_table *table, int dtype);

/* Pooling. */
enum { HELD = 4 }; /* rows of the image that are held in phases (pool.h) */

/* A column of the pooling windows: that of output ow is column (ow + shift) * stride_w + residue of the image. */
typedef struct {
    ptrdiff_t shift, residue;
    ptrdiff_t offset; /* from the first column of the window */
    ptrdiff_t at;     /* where output 0 finds it among the phases (pool.h) */
} xent_tap;

typedef struct {
    xent_window window;
    ptrdiff_t planes;        /* N * C */
    const void *x, *grad;
    void *out;
    int count_include_pad;
    ptrdiff_t bottom, right; /* padding there, for the divisor of avg_pool2d */
    ptrdiff_t chunk;         /* planes per chunk */
    /* How a row of an image lies in scratch; pool.h says what these are. */
    ptrdiff_t first_tap, taps, phases, before, after, span, line;
} xent_pool_args;

#endif
