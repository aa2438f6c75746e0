/* scan.c: scans of what a caller gave, and sums of what chunks have left. Sums are compensated (Knuth's TwoSum), in
 * index order. */
#include "plan.h"
#include "wide.h"

#include <math.h>

ALWAYS_INLINE int is_label(int64_t y, ptrdiff_t classes) { return (uint64_t)y < (uint64_t)classes; }

ptrdiff_t xent_scan_labels(xent_labels labels, ptrdiff_t n, ptrdiff_t classes, ptrdiff_t *counted)
{
    const int64_t *label = labels.data, ignore_index = labels.ignore_index;
    ptrdiff_t good = 0, ignored = 0;
    /* Most often all are in range: then no sign bit is set in y or in classes - 1 - y, which costs a few operations of
     * any vectors. */
    int64_t outside = 0;
    for (ptrdiff_t i = 0; i < n; i++) outside |= label[i] | (int64_t)((uint64_t)(classes - 1) - (uint64_t)label[i]);
    if (outside >= 0 && !is_label(ignore_index, classes)) {
        *counted = n;
        return -1;
    }
    for (ptrdiff_t i = 0; i < n; i++) { /* without a branch: the compiler makes vectors of it */
        good += is_label(label[i], classes) & (label[i] != ignore_index);
        ignored += label[i] == ignore_index;
    }
    *counted = good;
    if (good + ignored == n) return -1;
    for (ptrdiff_t i = 0; i < n; i++)
        if (label[i] != ignore_index && !is_label(label[i], classes)) return i;
    return -1; /* another thread has written to the labels meanwhile */
}

int xent_narrow_exactly(const double *from, float *to, ptrdiff_t n)
{
    float block[1024]; /* is in an L1 cache still when it is compared */
    for (ptrdiff_t i = 0; i < n; i += 1024) {
        const ptrdiff_t size = xent_min(1024, n - i);
        float *here = to ? to + i : block;
        int64_t lost = 0;
        for (ptrdiff_t k = 0; k < size; k++) here[k] = (float)from[i + k];
        for (ptrdiff_t k = 0; k < size; k++) /* without a branch: the compiler makes vectors of it */
            lost |= (int64_t)((double)here[k] != from[i + k]) & (int64_t)(from[i + k] == from[i + k]);
        if (lost) return 0;
    }
    return 1;
}

ptrdiff_t xent_scan_classes(const int64_t *ids, ptrdiff_t n, ptrdiff_t k, ptrdiff_t classes, uint8_t *seen,
                            int *repeated)
{
    *repeated = 0;
    for (ptrdiff_t p = 0; p < n; p++, ids += k) {
        for (ptrdiff_t j = 0; j < k; j++) {
            const int64_t id = ids[j];
            if (!is_label(id, classes)) return p * k + j;
            if (seen[id / 8] >> id % 8 & 1) {
                *repeated = 1;
                return p * k + j;
            }
            seen[id / 8] |= (uint8_t)(1 << id % 8);
        }
        for (ptrdiff_t j = 0; j < k; j++)
            if (is_label(ids[j], classes)) seen[ids[j] / 8] = 0; /* another thread may have written to it meanwhile */
    }
    return -1;
}

double xent_weigh_labels(xent_labels labels, ptrdiff_t n, ptrdiff_t classes, const double *weight,
                         const double *sample_weight, double *per_label)
{
    double total = 0, error = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const int64_t y = labels.data[i];
        if (y == labels.ignore_index || !is_label(y, classes)) continue;
        const double factor = sample_weight ? sample_weight[i] : 1;
        if (per_label && sample_weight)
            two_sum_add(per_label + y, per_label + classes + y, factor);
        else if (per_label)
            per_label[y]++; /* exact */
        two_sum_add(&total, &error, weight ? weight[y] * factor : factor);
    }
    return total + error;
}

void xent_sum_at(const int64_t *place, const double *values, ptrdiff_t n, ptrdiff_t size, double *sums)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (is_label(place[i], size)) two_sum_add(sums + place[i], sums + size + place[i], values[i]);
}

void xent_settle(double *sums, ptrdiff_t size)
{
    for (ptrdiff_t k = 0; k < size; k++) sums[k] += isfinite(sums[k]) ? sums[size + k] : 0;
}

/* A loop without a branch, of which the compiler makes vectors. */
#define COUNT_FACTORS(T)                                                                                               \
    for (ptrdiff_t i = 0; i < n; i++) {                                                                                \
        const T v = ((const T *)numbers)[i];                                                                           \
        good += ((v > 0) | (!positive & (v == 0))) & (v < (T)INFINITY);                                                \
    }

ptrdiff_t xent_count_factors(const void *numbers, int dtype, ptrdiff_t n, int positive)
{
    ptrdiff_t good = 0;
    if (dtype == XENT_F64)
        COUNT_FACTORS(double)
    else
        COUNT_FACTORS(float)
    return good;
}

/* By their bits numbers from 0 to 1 are integers up to that of 1, or the least one, -0. Likewise without a branch; of
 * doubles these are the upper halves, as not every machine compares integers of 64 bits. */
#define ANY_BAD(I, one)                                                                                                \
    for (ptrdiff_t i = begin; i < end; i++) {                                                                          \
        const I bits = ((const I *)a->data)[i];                                                                        \
        bad |= ((bits > (I)(one)) | (bits < 0)) & (bits != (I)((uint32_t)1 << (8 * sizeof(I) - 1)));                   \
    }

static int any_bad_double(const uint64_t *bits, ptrdiff_t begin, ptrdiff_t end)
{
    const int32_t one = 0x3ff00000, minus_zero = INT32_MIN;
    int32_t bad = 0;
    for (ptrdiff_t i = begin; i < end; i++) {
        const int32_t high = (int32_t)(bits[i] >> 32), low = (int32_t)bits[i];
        bad |= ((high >= one) | (high < 0)) & ((low != 0) | ((high != one) & (high != minus_zero)));
    }
    return bad;
}

void xent_check_probs(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_probs_args *a = (const xent_probs_args *)args;
    const ptrdiff_t begin = chunk * XENT_CHUNK, end = xent_min(begin + XENT_CHUNK, a->size);
    int bad = 0;
    (void)scratch;
    switch (a->dtype) {
    case XENT_F64: bad = any_bad_double((const uint64_t *)a->data, begin, end); break;
    case XENT_F32: ANY_BAD(int32_t, 0x3f800000) break;
    case XENT_F16: ANY_BAD(int16_t, 0x3c00) break;
    default: ANY_BAD(int16_t, 0x3f80)
    }
    if (bad) __atomic_store_n(a->bad, 1, __ATOMIC_RELAXED);
}

xent_plan xent_plan_probs(const xent_probs_args *a)
{
    return (xent_plan){.chunks = xent_ceil_div(a->size, XENT_CHUNK)};
}

/* Integers that floats are by their bits, in the order of their sizes: the compiler makes vectors of their comparisons even
 * where it has none of 64 bits. Of doubles they are the upper halves. */
int xent_are_plain(const void *numbers, int dtype, ptrdiff_t n, int octaves)
{
    int32_t bad = 0;
    if (dtype == XENT_F64) {
        const uint64_t *bits = (const uint64_t *)numbers;
        const int32_t low = (1023 - octaves) << 20, high = (1023 + octaves) << 20;
        for (ptrdiff_t i = 0; i < n; i++) {
            const int32_t size = (int32_t)(bits[i] >> 32) & 0x7fffffff, rest = (int32_t)bits[i];
            bad |= ((size < low) & ((size | rest) != 0)) | (size >= high);
        }
    } else {
        const int32_t *bits = (const int32_t *)numbers;
        const int32_t low = (127 - octaves) << 23, high = (127 + octaves) << 23;
        for (ptrdiff_t i = 0; i < n; i++) {
            const int32_t size = bits[i] & 0x7fffffff;
            bad |= ((size < low) & (size != 0)) | (size >= high);
        }
    }
    return !bad;
}

double xent_wide_mean(const double *partial, const xent_wide_sum *wide, ptrdiff_t n, double divisor, double unit)
{
    xent_wide_sum all = {.sum = 0};
    for (ptrdiff_t k = 0; k < n; k++) {
        wide_add_to(&all, wide_of(partial[k]));
        wide_add_to(&all, wide_of_parts(wide[k].sum, wide[k].exponent));
        if (isfinite(wide[k].sum)) wide_add_to(&all, wide_of_parts(wide[k].error, wide[k].exponent));
    }
    return wide_as_double(wide_quotient(wide_quotient(wide_total(&all), wide_of(divisor)), wide_of(unit)));
}

ptrdiff_t xent_count_plain(const double *numbers, ptrdiff_t n)
{
    const double least = ldexp(1.0, XENT_PLAIN_LOW), most = ldexp(1.0, XENT_PLAIN_HIGH + 1);
    ptrdiff_t plain = 0;
    for (ptrdiff_t i = 0; i < n; i++) { /* without a branch, like the loop above */
        const double size = fabs(numbers[i]);
        plain += ((size >= least) & (size < most)) | (size == 0);
    }
    return plain;
}

ptrdiff_t xent_find_exponents(const double *numbers, ptrdiff_t n, int *low, int *high)
{
    ptrdiff_t finite = 0;
    double least = INFINITY, most = 0;
    for (ptrdiff_t i = 0; i < n; i++) { /* without a branch, as above */
        const double size = fabs(numbers[i]), counts = size < INFINITY ? size : 0;
        finite += size < INFINITY;
        most = counts > most ? counts : most;
        least = counts > 0 && counts < least ? counts : least;
    }
    *low = most > 0 ? ilogb(least) : 0, *high = most > 0 ? ilogb(most) : 0;
    return finite;
}

double xent_ordered_sum(const double *terms, ptrdiff_t n, ptrdiff_t step)
{
    double total = 0, error = 0;
    for (ptrdiff_t k = 0; k < n; k++) two_sum_add(&total, &error, terms[k * step]);
    return isfinite(total) ? total + error : total;
}

void xent_add(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_add_args *a = (const xent_add_args *)args;
    const ptrdiff_t start = chunk * XENT_CHUNK, end = xent_min(start + XENT_CHUNK, a->size);
    (void)scratch;
    if (a->single)
        for (ptrdiff_t i = start; i < end; i++) ((float *)a->total)[i] += ((const float *)a->part)[i];
    else
        for (ptrdiff_t i = start; i < end; i++) ((double *)a->total)[i] += ((const double *)a->part)[i];
}

xent_plan xent_plan_add(const xent_add_args *a) { return (xent_plan){.chunks = xent_ceil_div(a->size, XENT_CHUNK)}; }
