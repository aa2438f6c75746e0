"""The C contract: csrc/table.h as Cython sees it, and a little of csrc/base.h. What the fields are for is said there."""

from libc.stdint cimport int64_t, uint8_t

cdef extern from "csrc/base.h" nogil:
    void two_sum_add(double *sum, double *error, double v)
    enum:
        CACHE_LINE

cdef extern from "csrc/table.h" nogil:
    enum:
        XENT_F32
        XENT_F64
        XENT_F16
        XENT_BF16
        XENT_DTYPES

    ctypedef void (*xent_kernel)(const void *args, Py_ssize_t chunk, void *scratch) noexcept nogil

    ctypedef struct xent_arithmetic:
        void (*exp_f32)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*exp_f64)(const double *, double *, Py_ssize_t) noexcept nogil
        void (*log_f32)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*log_f64)(const double *, double *, Py_ssize_t) noexcept nogil
        void (*log1p_f32)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*log1p_f64)(const double *, double *, Py_ssize_t) noexcept nogil

    ctypedef struct xent_table:
        const char *name
        int vector_bytes, strip_bytes
        const xent_kernel *softmax
        const xent_kernel *log_softmax
        const xent_kernel *logsumexp
        const xent_kernel *weighted_logsumexp
        const xent_kernel *softmax_backward
        const xent_kernel *log_softmax_backward
        const xent_kernel *logsumexp_backward
        const xent_kernel *cross_entropy
        const xent_kernel *cross_entropy_product
        const xent_kernel *evaluate
        const xent_kernel *sigmoid
        const xent_kernel *log_sigmoid
        const xent_kernel *sigmoid_backward
        const xent_kernel *log_sigmoid_backward
        const xent_kernel *sigmoid_cross_entropy
        const xent_kernel *convert_from
        const xent_kernel *convert_to
        const xent_kernel *element_losses
        const xent_kernel *position_losses
        const xent_kernel *label_losses
        const xent_kernel *distillation
        const xent_kernel *sparse_distillation
        const xent_kernel *token_log_probs
        const xent_kernel *comparison
        const xent_kernel *im2col
        const xent_kernel *col2im
        const xent_kernel *conv2d_pack
        const xent_kernel *conv2d
        const xent_kernel *conv2d_grad_weight
        const xent_kernel *conv2d_merge
        const xent_kernel *conv2d_grad_bias
        const xent_kernel *max_pool2d
        const xent_kernel *max_pool2d_backward
        const xent_kernel *avg_pool2d
        const xent_kernel *avg_pool2d_backward
        const xent_arithmetic *arithmetic

    const xent_table *xent_find(const char *name)
    const char *xent_isa_name(int index, int *usable)

    int xent_offered_threads()
    int xent_thread_limit()
    int xent_is_team_awake()
    void xent_run(xent_kernel kernel, const void *args, Py_ssize_t chunks, int threads, int workers, void *scratch,
                  Py_ssize_t scratch_size, xent_kernel first, Py_ssize_t first_chunks)
    int xent_start_threads()

    enum:
        XENT_LARGE_RESULT
        XENT_MOST_UNMARKED

    int xent_start_results()
    void xent_bound_results(size_t most, int huge)
    int xent_drop_results()
    size_t xent_results_bound()
    size_t xent_results_held()
    void *xent_result_malloc(void *context, size_t n) noexcept
    void *xent_result_calloc(void *context, size_t items, size_t size) noexcept
    void *xent_result_realloc(void *context, void *data, size_t n) noexcept
    void xent_result_free(void *context, void *data, size_t n) noexcept

    ctypedef enum xent_scratch:
        XENT_OF_THREADS
        XENT_OF_ALL
        XENT_SCRATCHES

    void *xent_spare(xent_scratch kind, void *memory)

    ctypedef struct xent_plan:
        Py_ssize_t chunks, scratch_size, partials, pack_chunks, packed, threads

    # ---- arrays, and how kernels see them ----

    enum:
        XENT_MOST_AXES

    ctypedef struct xent_array:
        void *data
        Py_ssize_t itemsize
        int ndim
        const Py_ssize_t *shape
        const Py_ssize_t *strides

    ctypedef struct xent_operand:
        void *data
        Py_ssize_t outer_stride, middle_stride, stride

    # ---- the softmax family ----

    enum:
        XENT_MOST_SUMS

    enum:
        XENT_DISTANCES

    ctypedef struct xent_positions:
        Py_ssize_t count, inner, middle_count, classes, chunk, room
        xent_operand x
        xent_operand target   # a union with grad_in
        xent_operand grad_in
        xent_operand out
        xent_operand hess
        int reads_hess, curved
        int packs, keeps_logits
        double *partial
        int sums
        Py_ssize_t *left
        uint8_t *is_left
        int transformed
        double temperature, cap
        const void *offset

    ctypedef struct xent_labels:
        const int64_t *data
        int64_t ignore_index

    ctypedef struct xent_per_position:
        void *data
        int single

    ctypedef struct xent_softmax_args:
        xent_positions positions
        void *result
        void *sign
        const double *log_sums
        const double *upstream

    ctypedef struct xent_dense:
        const void *weight
        double mix, base

    ctypedef struct xent_cross_entropy_args:
        xent_positions positions
        xent_labels labels
        xent_dense dense
        double peak
        const double *label_weight
        double z_loss, gamma
        const double *sample_weight
        const double *upstream
        double gradient_scale
        double curvature
        int exact
        xent_per_position losses

    ctypedef struct xent_evaluate_args:
        xent_positions positions
        xent_labels labels
        const double *sample_weight
        int64_t *rank
        int64_t most
        int brief
        double *report[4]

    enum:
        XENT_LOSSES
        XENT_RIGHT
        XENT_CONFIDENCE
        XENT_PREDICTED

    ctypedef struct xent_token_args:
        xent_positions positions
        const int64_t *ids
        Py_ssize_t per_position, inner
        void *log_probs
        int64_t *rank
        void *entropy

    enum:
        XENT_MSE
        XENT_BINARY_CROSS_ENTROPY
        XENT_CROSS_ENTROPY
        XENT_KL_DIV
        XENT_KL_DIV_LOG
        XENT_ENTROPY
        XENT_NLL
        XENT_LABEL_CROSS_ENTROPY

    ctypedef struct xent_loss:
        int kind
        double unit, clip, gradient_scale, factor, divisor
        int careful

    enum:
        XENT_PLAIN_WEIGHT_F32
        XENT_PLAIN_WEIGHT_F64

    const double XENT_PLAIN_SCALE_F32, XENT_PLAIN_SCALE_F64

    ctypedef struct xent_wide_sum:
        double sum, error
        int64_t exponent

    ctypedef struct xent_position_losses_args:
        xent_positions positions
        xent_loss loss
        const double *upstream
        void *losses

    ctypedef struct xent_label_losses_args:
        xent_positions positions
        xent_labels labels
        xent_loss loss
        const double *label_weight
        const double *upstream
        xent_per_position losses

    ctypedef struct xent_distillation_args:
        xent_positions positions
        double temperature, factor, gradient_scale
        const double *upstream
        void *losses

    ctypedef struct xent_sparse_distillation_args:
        xent_positions positions
        int rule
        Py_ssize_t k
        const int64_t *ids
        const void *log_probs
        int single
        const double *sample_weight
        const double *upstream
        double gradient_scale
        xent_per_position losses
    ctypedef struct xent_comparison_args:
        xent_positions positions
        double temperature
        void *divergence
        double *same
        xent_labels labels
        double *report[4]

    enum:
        XENT_STUDENT_LOSS
        XENT_TEACHER_LOSS
        XENT_STUDENT_P
        XENT_TEACHER_P
        XENT_COMPARED

    int xent_walk_positions(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                            const xent_array *hess, int axis)
    int xent_walk_apart(xent_positions *p, const xent_array *x, const xent_array *target, const xent_array *out,
                        const xent_array *hess, int axis)
    int xent_walk_labels(xent_positions *p, const xent_array *x, const xent_array *out, int axis)

    enum:
        XENT_NO_EXPS
        XENT_SUMMED_EXPS
        XENT_REUSED_EXPS
        XENT_ROW_SUMS
        XENT_ONE_CLASS

    xent_plan xent_plan_positions(xent_positions *p, int dtype, int exps)
    xent_plan xent_plan_product(xent_positions *p, int dtype) noexcept
    xent_plan xent_plan_distillation(xent_distillation_args *a, int dtype)
    xent_plan xent_plan_sparse_distillation(xent_sparse_distillation_args *a, int dtype)
    xent_plan xent_plan_comparison(xent_comparison_args *a, int dtype)

    # ---- elements ----

    ctypedef struct xent_element_losses_args:
        Py_ssize_t rows, middle_count, length, piece, chunk
        xent_operand x, target, out, weight, upstream, losses
        double *partial
        xent_wide_sum *wide
        int *bad
        xent_loss loss

    enum:
        XENT_LOSS_OPERANDS

    int xent_walk_elements(xent_element_losses_args *a, const xent_array **operands)
    xent_plan xent_plan_elements(xent_element_losses_args *a)

    ctypedef struct xent_map_args:
        Py_ssize_t size, chunk
        const void *x
        const void *y
        void *out
        int single

    xent_plan xent_plan_map(xent_map_args *a)

    enum:
        XENT_I8
        XENT_I16
        XENT_I32
        XENT_I64

    ctypedef struct xent_factor:
        const void *data
        Py_ssize_t repeat, count

    enum:
        XENT_NO_CURVATURE
        XENT_EXACT
        XENT_GAUSS_NEWTON
        XENT_ABSOLUTE

    enum:
        XENT_BAD_TARGET
        XENT_ROUNDED_TARGET

    ctypedef struct xent_sigmoid_args:
        Py_ssize_t size, chunk
        const void *x
        const void *target
        int target_code, ignoring
        int64_t ignore_index
        xent_factor weight, pos_weight, upstream
        double mix, base, gamma, alpha_1, alpha_0, gradient_scale, factor, divisor
        int careful, curvature, value
        void *out
        void *hess
        void *losses
        double *partial
        xent_wide_sum *wide
        int64_t *counted

    xent_plan xent_plan_sigmoid(xent_sigmoid_args *a, int dtype)

    # ---- scans of what a caller gave, and sums ----

    Py_ssize_t xent_scan_classes(const int64_t *ids, Py_ssize_t n, Py_ssize_t k, Py_ssize_t classes, uint8_t *seen,
                                 int *repeated)
    Py_ssize_t xent_scan_labels(xent_labels labels, Py_ssize_t n, Py_ssize_t classes, Py_ssize_t *counted)
    double xent_weigh_labels(xent_labels labels, Py_ssize_t n, Py_ssize_t classes, const double *weight,
                             const double *sample_weight, double *per_label)
    void xent_sum_at(const int64_t *place, const double *values, Py_ssize_t n, Py_ssize_t size, double *sums)
    void xent_settle(double *sums, Py_ssize_t size)
    int xent_narrow_exactly(const double *numbers, float *to, Py_ssize_t n)
    Py_ssize_t xent_count_factors(const void *numbers, int dtype, Py_ssize_t n, int positive)
    int xent_are_plain(const void *numbers, int dtype, Py_ssize_t n, int octaves)
    double xent_wide_mean(const double *partial, const xent_wide_sum *wide, Py_ssize_t n, double divisor, double unit)

    ctypedef struct xent_probs_args:
        Py_ssize_t size
        int dtype
        const void *data
        int *bad

    xent_plan xent_plan_probs(const xent_probs_args *a)
    void xent_check_probs(const void *args, Py_ssize_t chunk, void *scratch) noexcept
    enum:
        XENT_PLAIN_LOW
        XENT_PLAIN_HIGH

    Py_ssize_t xent_count_plain(const double *numbers, Py_ssize_t n)
    Py_ssize_t xent_find_exponents(const double *numbers, Py_ssize_t n, int *low, int *high)
    double xent_ordered_sum(const double *terms, Py_ssize_t n, Py_ssize_t step)

    ctypedef struct xent_add_args:
        Py_ssize_t size
        int single
        void *total
        const void *part

    xent_plan xent_plan_add(const xent_add_args *a)
    void xent_add(const void *args, Py_ssize_t chunk, void *scratch) noexcept

    ctypedef struct xent_reorder_args:
        Py_ssize_t itemsize

    int xent_see_order(xent_reorder_args *a, const xent_array *source, const xent_array *target)
    xent_plan xent_plan_reorder(xent_reorder_args *a)
    void xent_reorder(const void *args, Py_ssize_t chunk, void *scratch) noexcept

    # ---- images ----

    ctypedef struct xent_window:
        Py_ssize_t height, width, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left, out_h, out_w

    ctypedef struct xent_im2col_args:
        xent_window window
        Py_ssize_t planes
        const void *x
        void *out

    xent_plan xent_plan_im2col(xent_im2col_args *a)
    xent_plan xent_plan_col2im(xent_im2col_args *a, int dtype)

    ctypedef struct xent_conv_args:
        xent_window window
        Py_ssize_t images, groups, in_channels, out_channels
        const void *x
        const void *weight
        const void *bias
        const void *grad
        void *packed
        void *patches
        void *out
        int relu
        Py_ssize_t out_size, out_first, out_row, out_step
        Py_ssize_t weight_first, weight_group, weight_out, weight_in, weight_i, weight_j
        int lanes_are_groups, weights_in_rows, weights_in_place, weights_kept
        Py_ssize_t patch_chunks, patch_bytes
        Py_ssize_t width

    ctypedef struct xent_merge_args:
        Py_ssize_t size, partials, chunk
        const void *x
        void *out

    xent_plan xent_plan_merge(xent_merge_args *a)
    xent_plan xent_plan_conv2d(xent_conv_args *a, const xent_table *table, int dtype)
    xent_plan xent_plan_grad_weight(xent_conv_args *a, const xent_table *table, int dtype)

    ctypedef struct xent_pool_args:
        xent_window window
        Py_ssize_t planes
        int average
        const void *x
        const void *grad
        void *out
        void *places
        int place_size
        int count_include_pad
        Py_ssize_t bottom, right, divisor

    xent_plan xent_plan_pool(xent_pool_args *a, int dtype)
