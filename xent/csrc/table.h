/* table.h: what the bridge (bridge/, by _kernels.pxd) and the C side agree on: element types, argument structures,
 * plans, and the table of kernels of one instruction set. Sizes and strides count elements unless they say bytes; all
 * are ptrdiff_t.
 *
 * A call goes: walk (where do the arrays lie?) -> plan (how is the work cut, and what scratch does a thread need?) ->
 * run (kernels over chunks) -> ordered sums. Walks, plans and scans are plain C, compiled once; kernels are compiled
 * for each instruction set.
 */
#ifndef XENT_TABLE_H
#define XENT_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Codes of the element types. A kernel that a type does not have is NULL in the table. */
enum { XENT_F32, XENT_F64, XENT_F16, XENT_BF16, XENT_DTYPES };

/* Work chunk number `chunk`; chunks depend on shapes alone and may run in any order, on any thread. `scratch` is this
 * thread's own memory, of the size that the plan asks for, or NULL. */
typedef void (*xent_kernel)(const void *args, ptrdiff_t chunk, void *scratch);

/* Arithmetic of its own, exposed so that tests can measure it: y[i] = f(x[i]). */
typedef struct {
    void (*exp_f32)(const float *, float *, ptrdiff_t);
    void (*exp_f64)(const double *, double *, ptrdiff_t);
    void (*log_f32)(const float *, float *, ptrdiff_t);
    void (*log_f64)(const double *, double *, ptrdiff_t);
    void (*log1p_f32)(const float *, float *, ptrdiff_t);
    void (*log1p_f64)(const double *, double *, ptrdiff_t);
} xent_arithmetic;

typedef struct {
    const char *name;                        /* of the instruction set */
    int vector_bytes, strip_bytes;           /* of the output channels that one product takes at a time: some vectors */
#define X(kernel) const xent_kernel *kernel; /* of each element type */
#define X16 X
#include "kernels.def"
#undef X
#undef X16
    const xent_arithmetic *arithmetic;
} xent_table;

/* dispatch.c */
const xent_table *xent_find(const char *name);     /* NULL if it was not built or cannot run here */
const char *xent_isa_name(int index, int *usable); /* every set that was built, best last; NULL past the end */

/* threads.c */
int xent_offered_threads(void);
int xent_thread_limit(void);
int xent_is_team_awake(void);
void xent_run(xent_kernel kernel, const void *args, ptrdiff_t chunks, int threads, int workers, void *scratch,
              ptrdiff_t scratch_size, xent_kernel first, ptrdiff_t first_chunks);
int xent_start_threads(void);

/* results.c */
enum {
    XENT_LARGE_RESULT = 2 << 20, /* bytes, a huge page: malloc reuses smaller blocks well enough */
    /* Bytes of results that are kept unmarked, and of scratch of each kind. To mark a block interrupts every processor
     * that has used it, and its pages are marked as used once more: on 16 processors a result of 4 MB took 2.3 times as
     * long as with `out=`, one of 16 MB 1.6 times. A loop over results of such sizes finds them all unmarked. */
    XENT_MOST_UNMARKED = 64 << 20,
};

int xent_start_results(void);                      /* once; not 0: no memory */
void xent_bound_results(size_t most, int huge);    /* bytes that may be kept; whether in huge pages, if there are any */
int xent_drop_results(void);                       /* give all that is kept to the system; whether there was any */
size_t xent_results_bound(void);                   /* bytes that may be kept */
size_t xent_results_held(void);                    /* bytes that are kept */
void *xent_result_malloc(void *context, size_t n); /* these four: for NumPy */
void *xent_result_calloc(void *context, size_t items, size_t size);
void *xent_result_realloc(void *context, void *data, size_t n);
void xent_result_free(void *context, void *data, size_t n);

/* Scratch of the threads of a call, and what is made once for all of them: both are wanted at the same time. */
typedef enum { XENT_OF_THREADS, XENT_OF_ALL, XENT_SCRATCHES } xent_scratch;
void *xent_spare(xent_scratch kind, void *memory); /* put it by, or NULL, and take what was there */

/* How the work of a call is cut. */
typedef struct {
    ptrdiff_t chunks;
    ptrdiff_t scratch_size; /* bytes that each thread needs; -1: more than can be addressed */
    ptrdiff_t partials;     /* conv2d_grad_weight: sums over different tiles, to be merged */
    ptrdiff_t pack_chunks;  /* conv2d: chunks of conv2d_pack */
    ptrdiff_t packed;       /* and the bytes of what it packs */
    ptrdiff_t threads;      /* more do not pay; 0: any number */
} xent_plan;

/* ---- arrays, and how kernels see them (walk.c) ---- */

enum { XENT_MOST_AXES = 64 }; /* of a NumPy array */

/* An array as NumPy has it. Strides are in bytes. */
typedef struct {
    void *data;
    ptrdiff_t itemsize;
    int ndim;
    const ptrdiff_t *shape, *strides;
} xent_array;

/* One array seen as (outer, middle, classes, inner): position p = (o * middle_count + m) * inner + i, class c lies at
 * data[o * outer_stride + m * middle_stride + c * stride + i]. inner > 1 means that neighbouring positions are
 * neighbours in memory. Two outer axes let a slice such as logits[:, :-1] be walked where it lies. data is NULL where
 * an operator has no such array. */
typedef struct {
    void *data;
    ptrdiff_t outer_stride, middle_stride, stride;
} xent_operand;

/* ---- the softmax family (softmax/) ---- */

enum { XENT_MOST_SUMS = 9 }; /* of a chunk */

/* Exponentials: none; added up only; the result is made of them. And none where all that is known of a position is a
 * sum, or one class. */
enum { XENT_NO_EXPS, XENT_SUMMED_EXPS, XENT_REUSED_EXPS, XENT_ROW_SUMS, XENT_ONE_CLASS };

/* The positions of a call: where they lie, how they are cut, and what a kernel reads and keeps. The first member of the
 * arguments of every operator of the family, and all that the cutting (plan.c, cut.h) looks at. */
typedef struct {
    ptrdiff_t count, inner, middle_count, classes;
    ptrdiff_t chunk; /* positions per chunk */
    int exps;        /* what the kernel does with exponentials */
    ptrdiff_t room;  /* exponentials that the scratch of a thread holds; if `transformed`, all its numbers */
    xent_operand x;  /* logits, or y */
    union {
        xent_operand target;  /* probability target or teacher's logits */
        xent_operand grad_in; /* incoming gradient */
    };
    xent_operand out, hess; /* result; second derivatives, or if `reads_hess` a vector of their shape that is read */
    int reads_hess;
    /* A loss that is worked on in doubles, line by line, where logits have been transformed (softmax/curved.h); numbers of
     * each array of a line, and how many bytes of the scratch lie before these. */
    int curved;
    ptrdiff_t line_room, lines_at;
    ptrdiff_t copies_at; /* bytes before copies as doubles (cross_entropy_product) */
    int packs; /* more than the logits is read or written for each class: short rows and columns go through a scratch */
    int streams;      /* the result is so large that it is stored past the caches */
    int keeps_logits; /* the kernel looks at the logits once more: they are kept beside the exponentials */
    double *partial;  /* `sums` numbers of each chunk: the sum of the losses is the first */
    int sums;
    /* NULL, or where a kernel may leave positions that are beyond its arithmetic, and touch nothing of them (but
     * cross_entropy_product, whose result is always fresh memory): how many of each chunk, and where that is not 0, 1 for
     * each that is left and 0 for others. */
    ptrdiff_t *left;
    uint8_t *is_left;
    /* u = x / temperature, then cap tanh(u / cap) unless cap is 0, then + offset[c] unless that is NULL; `transformed`
     * where any is in use, or tiles have copies for another reason (transform.h). */
    int transformed;
    double temperature, cap;
    const void *offset; /* of the real type: a number per class, and then what rounding left of each */
} xent_positions;

enum {
    XENT_DISTANCES = 2
}; /* of `transformed`: distances from the largest logit are wanted, whatever there is to be done */

/* Labels of the positions; NULL: none. */
typedef struct {
    const int64_t *data;
    int64_t ignore_index;
} xent_labels;

/* One result for each position, in C order: floats or doubles. `data` may be NULL. */
typedef struct {
    void *data;
    int single; /* floats */
} xent_per_position;

/* softmax, log_softmax, softmax_backward, log_softmax_backward; logsumexp, which alone has `result`, and its backward;
 * weighted_logsumexp, whose logits are always transformed and whose factors are the target. */
typedef struct {
    xent_positions positions;
    void *result;                      /* one log-sum-exp per position, of the type computed with */
    void *sign;                        /* and the sign of its sum; NULL: of a negative one the result is NaN */
    const double *log_sums, *upstream; /* logsumexp_backward: y, and the incoming gradient, of each position */
} xent_softmax_args;

/* The dense target of a position is u_c = w_c (mix * t_c + base). */
typedef struct {
    const void *weight; /* one per class, of the real type, or NULL */
    double mix, base;
} xent_dense;

typedef struct {
    xent_positions positions;
    xent_labels labels;
    xent_dense dense;
    double peak;                 /* times w_y: the target of label y */
    const double *label_weight;  /* w in double, or NULL */
    double z_loss, gamma;        /* + z_loss logsumexp^2; the label's term times (1 - p_y)^gamma */
    const double *sample_weight; /* one factor per position, of loss and gradient, or NULL */
    const double *upstream;      /* one factor per position, of the gradient, or NULL */
    double gradient_scale;       /* multiplies every gradient */
    double curvature;            /* factor of p (1 - p) in the second derivatives; 0: they are |gradient| */
    int exact;                   /* whether these have all terms, and not only what is never negative */
    xent_per_position losses;
} xent_cross_entropy_args;

/* What evaluate() may report of each position: -log p_y; 1 where the label has the largest logit, else 0; the largest
 * probability; the class with the largest logit, or -1. */
enum { XENT_LOSSES, XENT_RIGHT, XENT_CONFIDENCE, XENT_PREDICTED, XENT_REPORTS };

/* Sums: losses, squares, entropies, first places; then those of standard errors (evaluate.h). */
typedef struct {
    xent_positions positions;
    xent_labels labels;
    const double *sample_weight;
    int64_t *rank;                /* classes before the label's, one per position, or NULL: at most */
    int64_t most;                 /* this, which ignored positions have */
    int brief;                    /* neither squares nor entropies */
    double *report[XENT_REPORTS]; /* one number per position each, or NULL */
} xent_evaluate_args;

/* Log-probabilities of `per_position` classes of each position (tokens.h). Class k of position p is
 * ids[(p / inner * per_position + k) * inner + p % inner], and there are its results. */
typedef struct {
    xent_positions positions;
    const int64_t *ids;
    ptrdiff_t per_position, inner;
    void *log_probs; /* of the type computed with */
    int64_t *rank;   /* how many logits are larger, or NULL */
    void *entropy;   /* of the prediction, one per position and of the type computed with, or NULL */
} xent_token_args;

/* Codes of the losses that are sums of a function of two numbers; the last two take labels. */
enum {
    XENT_MSE,
    XENT_BINARY_CROSS_ENTROPY,
    XENT_CROSS_ENTROPY,
    XENT_KL_DIV,
    XENT_KL_DIV_LOG,
    XENT_ENTROPY,
    XENT_NLL,
    XENT_LABEL_CROSS_ENTROPY
};

/* What the losses of probabilities share. */
typedef struct {
    int kind;               /* one of the codes */
    double unit;            /* divides every loss */
    double clip;            /* bounds probabilities away from 0, or 0 */
    double gradient_scale;  /* multiplies every gradient: factor / (unit * divisor) */
    double factor, divisor; /* of which the quotient may have lost what they have; a divisor of 0 counts as 1 */
    int careful;            /* whether factors are so odd that every element is made with care (elements/careful.h) */
} xent_loss;

/* Factors beyond these, and not 0, are odd: weights, of floats and of doubles, and the factor of all gradients. Between
 * them three weights and the tail of an exponential are far from the ends of the type. */
enum { XENT_PLAIN_WEIGHT_F32 = 20, XENT_PLAIN_WEIGHT_F64 = 200 }; /* octaves from 1 */
#define XENT_PLAIN_SCALE_F32 0x1p60
#define XENT_PLAIN_SCALE_F64 0x1p400

/* A compensated sum of numbers that doubles may not hold, in units of 2^exponent. */
typedef struct {
    double sum, error;
    int64_t exponent;
} xent_wide_sum;

/* Losses of positions, each a sum over its classes; `losses` are of the type computed with. */
typedef struct {
    xent_positions positions;
    xent_loss loss;
    const double *upstream; /* one factor per position, or NULL */
    void *losses;
} xent_position_losses_args;

/* Losses of labels, which look at one class of each position (label_losses.h). */
typedef struct {
    xent_positions positions;
    xent_labels labels;
    xent_loss loss;
    const double *label_weight; /* one per class, or NULL */
    const double *upstream;
    xent_per_position losses;
} xent_label_losses_args;

/* The distillation loss. */
typedef struct {
    xent_positions positions;
    double temperature;
    double factor; /* multiplies every loss */
    double gradient_scale;
    const double *upstream;
    void *losses; /* of the type computed with, or NULL */
} xent_distillation_args;

/* What the k largest of a teacher leave of the mass (sparse_distillation.h). */
enum { XENT_BUCKET, XENT_RENORMALIZE, XENT_DROP };

/* Distillation from k probabilities of a teacher at each position. */
typedef struct {
    xent_positions positions; /* rows */
    int rule;
    ptrdiff_t k;
    const int64_t *ids;                     /* k classes per position */
    const void *log_probs;                  /* floats or doubles, in the same places */
    int single;                             /* floats */
    const double *sample_weight, *upstream; /* one per position, or NULL */
    double gradient_scale;                  /* with 1 / temperature */
    xent_per_position losses;
    ptrdiff_t entries_at; /* bytes of the scratch before what the plan adds */
} xent_sparse_distillation_args;
/* Comparisons of a student's logits with a teacher's, the target. */
enum { XENT_STUDENT_LOSS, XENT_TEACHER_LOSS, XENT_STUDENT_P, XENT_TEACHER_P, XENT_COMPARED };
typedef struct {
    xent_positions positions;
    double temperature;
    void *divergence; /* of the type computed with, one per position */
    double *same;     /* 1 where the same class has the largest logit, else 0 */
    xent_labels labels;
    double *report[XENT_COMPARED]; /* with labels y, -log p_y and p_y of both, one number per position each */
} xent_comparison_args;

/* walk.c: see arrays of one shape (NULL: none) as positions and classes; 0 if they do not lie in a way that the kernels
 * know. Fills in all of `p` that speaks of shapes and memory, and the defaults of the rest. */
int xent_walk_positions(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                        const xent_array *hess, int axis);

/* The same where classes of x may lie a few numbers apart: then positions are `transformed`, as tiles have copies of these. */
int xent_walk_apart(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                    const xent_array *hess, int axis);

/* The same for losses that look at one class of each position (label_losses.h), whose x may lie in more ways. */
int xent_walk_labels(xent_positions *p, const xent_array *x, const xent_array *out, int axis);

/* softmax/plan.c: which exponentials a kernel wants kept. */
xent_plan xent_plan_positions(xent_positions *p, int dtype, int exps);
xent_plan xent_plan_product(xent_positions *p, int dtype);
xent_plan xent_plan_distillation(xent_distillation_args *a, int dtype);
xent_plan xent_plan_sparse_distillation(xent_sparse_distillation_args *a, int dtype);
xent_plan xent_plan_comparison(xent_comparison_args *a, int dtype);

/* ---- elements (elements/) ---- */

/* Losses of elements. All arrays have rows of `length` elements: row o * middle_count + m begins at
 * data[o * outer_stride + m * middle_stride], where the next element is `stride` (0 or 1) on. */
typedef struct {
    ptrdiff_t rows, middle_count, length;
    ptrdiff_t piece, chunk; /* a chunk: so many elements of so many rows */
    xent_operand x, target, out;
    xent_operand weight, upstream, losses; /* of the real type; data may be NULL */
    double *partial;                       /* sum of the losses of each chunk, or NULL if no loss is wanted */
    xent_wide_sum *wide;                   /* sum of those of its odd elements, which the other has not */
    int *bad;                              /* set to 1 where a target of the binary cross-entropy is no probability */
    xent_loss loss;
} xent_element_losses_args;

enum { XENT_LOSS_OPERANDS = 6 };
/* In the order x, target, weight, upstream, out, losses; NULL: none. 0 if they do not lie in a way that the kernel
 * knows. */
int xent_walk_elements(xent_element_losses_args *a, const xent_array *const operands[XENT_LOSS_OPERANDS]);
xent_plan xent_plan_elements(xent_element_losses_args *a);

/* Elementwise functions of contiguous arrays, of one or of two. */
typedef struct {
    ptrdiff_t size, chunk;
    const void *x, *y;
    void *out;
    int single; /* conversions: the other type is float, not double */
} xent_map_args;
xent_plan xent_plan_map(xent_map_args *a);

/* Targets of the sigmoid cross-entropy beside the element types: integers, of which the sign does not matter. */
enum { XENT_I8 = XENT_DTYPES, XENT_I16, XENT_I32, XENT_I64 };

/* Factors of the elements, of the type computed with: that of element i is data[i / repeat % count]; 1 without data. */
typedef struct {
    const void *data;
    ptrdiff_t repeat, count;
} xent_factor;

/* Second derivatives of the sigmoid cross-entropy: none; exact; what of it is never negative; the size of
 * the gradient. */
enum { XENT_NO_CURVATURE, XENT_EXACT, XENT_GAUSS_NEWTON, XENT_ABSOLUTE };

/* What is wrong with the targets of a chunk: one is bad, or none is, but the type computed with rounds one. */
enum { XENT_BAD_TARGET = -1, XENT_ROUNDED_TARGET = -2 };

/* |logits| up to `plain` are not odd, nor those from `nothing` to `far` (sigmoid.h). */
typedef struct {
    double plain, nothing, far;
} xent_odd_logits;

/* Sigmoid cross-entropy. Without `value` and `out` the targets are checked and counted, and that is all. */
typedef struct {
    ptrdiff_t size, chunk;
    const void *x, *target;
    int target_code; /* any integers, f32, f64 or the type of x */
    int ignoring;    /* whether `ignore_index` is one of the integers; its bits */
    int64_t ignore_index;
    xent_factor weight, pos_weight, upstream;
    double mix, base;                    /* the target used: mix * t + base */
    double gamma, alpha_1, alpha_0;      /* alpha_t of t = 1 and t = 0 */
    double gradient_scale;               /* factor / divisor */
    double factor, divisor;              /* a divisor of 0 counts as 1 */
    xent_odd_logits odd, odd_in_doubles; /* of the type computed with, and of doubles */
    int careful;                         /* whether factors are so odd that every element is made with care */
    int curvature;                       /* of the second derivatives */
    int value;                           /* whether losses are wanted */
    void *out, *hess,
        *losses;         /* gradient and second derivatives; losses of the type computed with: NULL where not wanted */
    double *partial;     /* sum of the losses of each chunk */
    xent_wide_sum *wide; /* sum of those of its odd elements, which the other has not */
    int64_t *counted;    /* elements of each chunk that are not ignored, or what is wrong */
} xent_sigmoid_args;
xent_plan xent_plan_sigmoid(xent_sigmoid_args *a, int dtype);

/* ---- scans of what a caller gave, and sums (scan.c) ---- */

/* The index of the first label that is neither in [0, classes) nor `ignore_index`, or -1; the number of those that are
 * not ignored. */
ptrdiff_t xent_scan_labels(xent_labels labels, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t *counted);
/* Of k classes at each of n positions, the index of the first that is not in [0, classes) or, `repeated`, was there before
 * at its position; or -1. `seen` has a bit for each class, all 0. */
ptrdiff_t xent_scan_classes(const int64_t *ids, ptrdiff_t n, ptrdiff_t k, ptrdiff_t classes, uint8_t *seen,
                            int *repeated);
/* The sum of the weights of the labels that are not ignored: weight[y] times sample_weight (either may be NULL: 1). If
 * `per_label` is not NULL, the sample weights of each label are added to it: as sums at places, or counts in one row. */
double xent_weigh_labels(xent_labels labels, ptrdiff_t n, ptrdiff_t classes, const double *weight,
                         const double *sample_weight, double *per_label);
/* Add n values to the sums at their places, two rows of `size`: the sums, and behind them what they have lost. A place
 * that is none is passed over. */
void xent_sum_at(const int64_t *place, const double *values, ptrdiff_t n, ptrdiff_t size, double *sums);
/* Give the sums back what they have lost, but for those that are infinite or NaN. */
void xent_settle(double *sums, ptrdiff_t size);
/* Put doubles into floats (NULL: nowhere); whether these hold all of them but NaN. They may not all be there if not. */
int xent_narrow_exactly(const double *from, float *to, ptrdiff_t n);
/* How many of n floats or doubles are finite and not negative, or even positive. */
ptrdiff_t xent_count_factors(const void *numbers, int dtype, ptrdiff_t n, int positive);
/* Whether all of n floats or doubles are 0 or of a size from 2^-octaves up to, without it, 2^octaves. */
int xent_are_plain(const void *numbers, int dtype, ptrdiff_t n, int octaves);
/* The sum of `partial` and `wide`, n of both, divided by two numbers without overflow on the way. */
double xent_wide_mean(const double *partial, const xent_wide_sum *wide, ptrdiff_t n, double divisor, double unit);
/* How many of n numbers are 0, or have an exponent from PLAIN_LOW to PLAIN_HIGH: weights that people use. */
enum { XENT_PLAIN_LOW = -40, XENT_PLAIN_HIGH = 7 };
ptrdiff_t xent_count_plain(const double *numbers, ptrdiff_t n);
/* The exponents of the smallest and largest of n numbers, but for 0 and what is not finite (0 and 0 where there is no
 * other); returns how many are finite. */
ptrdiff_t xent_find_exponents(const double *numbers, ptrdiff_t n, int *low, int *high);
/* The sum of every `step`th of the terms, n of them, in index order. */
double xent_ordered_sum(const double *terms, ptrdiff_t n, ptrdiff_t step);

/* Sets *bad to 1 if one of contiguous numbers is not in [0, 1]. As the addition below, compiled once. */
typedef struct {
    ptrdiff_t size;
    int dtype;
    const void *data;
    int *bad;
} xent_probs_args;
xent_plan xent_plan_probs(const xent_probs_args *a);
void xent_check_probs(const void *args, ptrdiff_t chunk, void *scratch);

/* total[i] += part[i], of floats or doubles. The time is that of the memory, so it is compiled once. */
typedef struct {
    ptrdiff_t size;
    int single;
    void *total;
    const void *part;
} xent_add_args;
xent_plan xent_plan_add(const xent_add_args *a);
void xent_add(const void *args, ptrdiff_t chunk, void *scratch);

/* ---- copies of arrays whose axes lie in another order (reorder.c) ---- */

enum { XENT_OUTER_AXES = 2 };

typedef struct {
    ptrdiff_t itemsize;
    const char *source, *end; /* no number of the source lies behind the end */
    char *target;
    /* A matrix (row, column) in both. Columns of the source are neighbours, and rows of the target; or, of `runs`, only rows
     * are in one of them or both. Bytes from one row to the next, and from one column to the next. */
    ptrdiff_t rows, columns, source_row, target_row, source_column, target_column;
    ptrdiff_t count[XENT_OUTER_AXES], source_outer[XENT_OUTER_AXES], target_outer[XENT_OUTER_AXES]; /* of matrices */
    ptrdiff_t chunk_rows, chunk_columns, chunk_matrices;
    int runs;        /* no transposition */
    int longer_rows; /* more rows than columns */
} xent_reorder_args;

/* How two arrays of one shape and itemsize lie, both aligned and not empty. 0: not so that this helps. */
int xent_see_order(xent_reorder_args *a, const xent_array *source, const xent_array *target);
xent_plan xent_plan_reorder(xent_reorder_args *a);
void xent_reorder(const void *args, ptrdiff_t chunk, void *scratch);

/* ---- images (images/) ---- */

/* The geometry of a sliding window over (height, width) images. */
typedef struct {
    ptrdiff_t height, width; /* of the input image */
    ptrdiff_t kernel_h, kernel_w;
    ptrdiff_t stride_h, stride_w;
    ptrdiff_t dilation_h, dilation_w;
    ptrdiff_t top, left; /* padding; right and bottom follow from the output's size */
    ptrdiff_t out_h, out_w;
} xent_window;

/* im2col and col2im; a chunk is one channel of one image. */
typedef struct {
    xent_window window;
    ptrdiff_t planes; /* N * C */
    const void *x;
    void *out;
    ptrdiff_t box_rows, box_columns; /* of an image, that col2im adds up at a time in scratch */
} xent_im2col_args;
xent_plan xent_plan_im2col(xent_im2col_args *a);
xent_plan xent_plan_col2im(xent_im2col_args *a, int dtype);

/* The convolution kernels. A product has at most ROWS rows and WIDEST vectors of sums in registers (product.h). */
enum { ROWS = 6, WIDEST = 8 };

typedef struct {
    xent_window window;
    ptrdiff_t images, groups;
    ptrdiff_t in_channels, out_channels;  /* per group */
    const void *x, *weight, *bias, *grad; /* the bias of the type computed with */
    /* Made by conv2d_pack: the weights in the order of the products, (group, strip of output channels, step, channel),
     * for groups as lanes (block of LANES groups, output channel, step, lane),
     * of 16 bits, if pixels are lanes, as rows of steps; or, where weights are read in place, nothing. */
    void *packed;
    void *patches; /* and, before them, patches that several chunks read, (group, tile, block) */
    void *out;
    int relu;
    /* Where output pixel (row, column) of a channel goes: out_first + row * out_row + column * out_step of out_size
     * pixels. */
    ptrdiff_t out_size, out_first, out_row, out_step;
    /* Where weight (output channel, input channel, i, j) of a group comes from, relative to `weight`. */
    ptrdiff_t weight_first, weight_group, weight_out, weight_in, weight_i, weight_j;
    /* How the work is cut: xent_plan, layout.h. */
    int lanes_are_groups; /* lanes of the products are groups (grouped.h), not output channels */
    int lanes_are_pixels; /* or pixels */
    int weights_in_place; /* weights are not packed, but read where they lie, weight_step apart */
    int weights_kept;     /* or packed once for many calls, whatever their images: asked for, not chosen */
    int packs_here;       /* or by each chunk, some steps before the products that read them */
    int by_planes;        /* lanes are pixels of planes, of which block_channels are in a patch (depthwise.h) */
    ptrdiff_t weight_step;
    int weights_in_rows;               /* packed or not, the weights of an output channel follow each other */
    ptrdiff_t packed_step, packed_row; /* from step to step and from channel to channel of a strip, packed or not */
    int patches_shared;                /* patches are filled once, by the first chunks of conv2d_pack */
    ptrdiff_t patch_chunks, patch_bytes;
    int x_in_place;    /* or there are none: the image is read where it lies */
    int taps_apart;    /* they are im2col matrices: each tap has what outputs see through it, without gaps */
    ptrdiff_t panels;  /* or, not 0, they lie in the order of the products, blocks of so many vectors (layout.h) */
    int skips_padding; /* taps that blocks of neighbouring pixels see on the padding alone are left out */
    int rows_in_order, columns_in_order; /* they have the rows, or columns, of the image as they are */
    ptrdiff_t width;                     /* output channels of a strip */
    ptrdiff_t pack_channels;             /* input channels of a chunk of conv2d_pack, where weights are packed */
    ptrdiff_t tile_images, tile_rows, tile_columns;
    ptrdiff_t block_channels, block_rows, block_columns;
    ptrdiff_t group_chunk, strip_chunk, tile_chunk; /* of one chunk; tiles of grad_weight only */
    ptrdiff_t patch_room, packed_room, sums_room, row_room, step_room, place_room, at_room; /* scratch, in numbers */
} xent_conv_args;

/* Sums in index order of `partials` arrays of `size` numbers, of the type computed with, that follow each other. */
typedef struct {
    ptrdiff_t size, partials, chunk;
    const void *x;
    void *out;
} xent_merge_args;
xent_plan xent_plan_merge(xent_merge_args *a);

/* images/plan.c, for an element type and an instruction set. */
xent_plan xent_plan_conv2d(xent_conv_args *a, const xent_table *table, int dtype);
xent_plan xent_plan_grad_weight(xent_conv_args *a, const xent_table *table, int dtype);

/* Pooling. */
enum { HELD = 4 }; /* rows of the image that are held in phases (pool.h) */

/* A column of the pooling windows: that of output ow is column (ow + shift) * stride_w + residue of the image. */
typedef struct {
    ptrdiff_t shift, residue;
    ptrdiff_t pixels; /* of the image with this residue */
    ptrdiff_t number; /* of the cell in the first row of the window */
    ptrdiff_t at;     /* where output 0 finds it among the phases (pool.h) */
} xent_tap;

/* An output row that reaches an input row: where it is kept, and the number of the first cell of its windows' row
 * there. */
typedef struct {
    ptrdiff_t at, start;
} xent_pair;

/* How the gradients of max pooling come to their pixels (pool_backward.h). */
enum { XENT_MOST_ROWS = 16 }; /* by bands: of a window */
enum { XENT_BY_ROWS, XENT_BY_BANDS, XENT_SCATTERED, XENT_DIRECT };
enum { XENT_FLAT = 512 };                                 /* direct: outputs whose pixels are made at a time */
enum { XENT_IN_IMAGE, XENT_IN_NUMBERS, XENT_IN_DOUBLES }; /* scattered: where sums are made, and of what type */

/* Where the windows of a block of outputs begin: column and row of the image, and pixel of the planes. */
typedef struct {
    int32_t *x, *y, *at;
} xent_origin;

/* Output rows that are worked on at a time, and the input rows that are finished by them. */
typedef struct {
    ptrdiff_t first, end, low, high;
} xent_rows_band;

typedef struct {
    xent_window window;
    ptrdiff_t planes; /* N * C */
    int average;
    const void *x, *grad;
    void *out;
    void *places; /* max: which cell of its window is each output's maximum, in C order; NULL: of no interest, or to be
                       found again */
    int place_size; /* bytes of one */
    int count_include_pad;
    ptrdiff_t bottom, right; /* padding there, for the divisor of avg_pool2d */
    ptrdiff_t divisor;       /* or this; 0: none */
    ptrdiff_t chunk;         /* planes per chunk */
    /* How a row of an image lies in scratch; pool.h says what these are. */
    ptrdiff_t first_tap, taps, phases, before, after, span, line;
    ptrdiff_t period;            /* taps from one of a residue to the next */
    ptrdiff_t held;              /* rows that are in phases at a time */
    ptrdiff_t ring, pairs;       /* backward: output rows to keep, and to be told of at a time */
    int way;                     /* max backward: how gradients come to pixels, */
    int alone, inside;           /* whether no pixel is seen by two windows, and no window sees padding, */
    int sums;                    /* what sums are made of, */
    ptrdiff_t block, block_room; /* rows of outputs at a time, and room for their numbers; */
    ptrdiff_t abreast, band;     /* by bands: planes side by side, and output rows at a time, */
    ptrdiff_t row_pitch, plane_pitch, lead, kept_room, line_pitch; /* how they are kept, and the pixels of planes; */
    ptrdiff_t strip, strip_room;   /* scattered: pixels that are added up in scratch; doubles that they take */
    ptrdiff_t first_number, pitch; /* max: numbers of the first tap and from a row of the window to the next */
    int whole;                     /* whether there is one window, which is the image */
    int few;                       /* whether sums have so few terms that the type itself can hold them */
} xent_pool_args;
xent_plan xent_plan_pool(xent_pool_args *a, int dtype); /* pools/plan.c */

#endif
