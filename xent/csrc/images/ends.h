/* ends.h: where numbers of a convolution are read and written: from memory into the order of the products, and the sums
 * back to memory. 16-bit floats are converted here, and rounded once; between the two ends they are floats.
 */
#include "begin.h"
#include "images/im2col.h"
#include "images/product.h"
#include "simd/stored.h"
#include "simd/transpose.h"

#ifndef XENT_ENDS_H
#define XENT_ENDS_H

/* packed[k * packed_step + lane] = source[lane * lane_step + k * step] for lane < lanes and 0 up to `width`, for n
 * steps. */
#ifndef STORED_AS_16
static void NAME(pack)(const T *source, ptrdiff_t lane_step, ptrdiff_t step, ptrdiff_t n, ptrdiff_t lanes,
                       ptrdiff_t width, T *packed, ptrdiff_t packed_step)
{
    ptrdiff_t lane = 0;
    if (lane_step == 1 && lanes >= LANES) {
        for (ptrdiff_t k = 0; k < n; k++)
            for (lane = 0; lane + LANES <= lanes; lane += LANES)
                v_store(packed + k * packed_step + lane, v_load(source + k * step + lane));
    } else if (step == 1 && n >= PIECE) {
        for (; lane + LANES <= lanes; lane += LANES) {
            for (ptrdiff_t k = 0; k < n; k += PIECE) {
                const ptrdiff_t first = xent_min(k, n - PIECE); /* the last piece may overlap */
                V v[PIECE];
                NAME(load_classes)(source + lane * lane_step + first, lane_step, v);
                for (int i = 0; i < PIECE; i++) v_store(packed + (first + i) * packed_step + lane, v[i]);
            }
        }
    }
    for (ptrdiff_t k = 0; lane < width && k < n; k++) {
        T *row = packed + k * packed_step;
        for (ptrdiff_t l = lane; l < lanes; l++) row[l] = source[l * lane_step + k * step];
        for (ptrdiff_t l = xent_max(lane, lanes); l < width; l++) row[l] = 0;
    }
}
#else
/* Steps that are converted at a time, on the stack: with 64 lanes 16 KiB. */
#define WIDENED 64

static void KERNEL(pack)(const S *source, ptrdiff_t lane_step, ptrdiff_t step, ptrdiff_t n, ptrdiff_t lanes,
                         ptrdiff_t width, T *packed, ptrdiff_t packed_step)
{
    T wide[VECTORS * LANES][WIDENED]; /* a strip is not wider */
    if (n <= 0) return;               /* all is padding, and `source` may lie beside the image */
    if (lane_step == 1) {
        for (ptrdiff_t k = 0; k < n; k++) {
            T *row = packed + k * packed_step;
            KERNEL(take)(row, source + k * step, lanes, 1);
            for (ptrdiff_t l = lanes; l < width; l++) row[l] = 0;
        }
        return;
    }
    if (step == 1 && n <= lane_step && lane_step <= WIDENED) { /* short runs that are neighbours: all at once */
        KERNEL(take)(wide[0], source, (lanes - 1) * lane_step + n, 1);
        NAME(pack)(wide[0], lane_step, 1, n, lanes, width, packed, packed_step);
        return;
    }
    for (ptrdiff_t k = 0; k < n; k += WIDENED) {
        const ptrdiff_t some = xent_min(WIDENED, n - k);
        for (ptrdiff_t l = 0; l < lanes; l++) KERNEL(take)(wide[l], source + l * lane_step + k * step, some, step);
        NAME(pack)(wide[0], WIDENED, 1, some, lanes, width, packed + k * packed_step, packed_step);
    }
}
#endif

/* The same, in the order in which the numbers lie where `step` is -1. */
ALWAYS_INLINE void KERNEL(pack_run)(const S *source, ptrdiff_t lane_step, ptrdiff_t step, ptrdiff_t n, ptrdiff_t lanes,
                                    ptrdiff_t width, T *packed)
{
    if (step == -1)
        KERNEL(pack)(source - (n - 1), lane_step, 1, n, lanes, width, packed + (n - 1) * width, -width);
    else
        KERNEL(pack)(source, lane_step, step, n, lanes, width, packed, width);
}

/* out[pixel * step] = v for n pixels: all lanes if n >= LANES. */
ALWAYS_INLINE void KERNEL(put_pixels)(S *out, V v, ptrdiff_t n, ptrdiff_t step)
{
    S some[LANES];
    if (step == 1) {
        KERNEL(store)(out, v, n);
    } else {
        KERNEL(store)(some, v, LANES);
        if (n >= LANES) { /* without asking after each */
            UNROLL
            for (int k = 0; k < LANES; k++) out[k * step] = some[k];
        } else {
            for (ptrdiff_t k = 0; k < n; k++) out[k * step] = some[k];
        }
    }
}

/* PIECE channels of sums (pixel, lane) to out (channel, pixel), or `some` of them. */
ALWAYS_INLINE void KERNEL(unpack_piece)(const T *sums, ptrdiff_t sums_step, ptrdiff_t n, ptrdiff_t some, S *out,
                                        ptrdiff_t channel_step, ptrdiff_t step, const T *bias, int relu)
{
    ptrdiff_t p = 0;
    for (; step == 1 && some == PIECE && n >= LANES && p < n; p += LANES) { /* nearly all of them */
        const ptrdiff_t first = xent_min(p, n - LANES);                     /* the last vector may overlap */
        V v[PIECE];
        NAME(load_classes)(sums + first * sums_step, sums_step, v);
        for (int i = 0; i < PIECE; i++)
            KERNEL(store)(out + i * channel_step + first, NAME(finished)(v[i], bias ? bias + i : NULL, relu), LANES);
    }
    for (; p < n; p += LANES) {
        V v[PIECE];
        NAME(load_classes)(sums + p * sums_step, sums_step, v);
        for (int i = 0; i < some; i++)
            KERNEL(put_pixels)(out + i * channel_step + p * step, NAME(finished)(v[i], bias ? bias + i : NULL, relu),
                               n - p, step);
    }
}

/* Sums that stay in an L1 cache while all channels are taken from them. */
#define UNPACKED_BYTES 16384

/* sums (pixel, lane) to out (channel, pixel): n pixels and `channels` lanes. Reads whole vectors of rows. */
static void KERNEL(unpack)(const T *sums, ptrdiff_t sums_step, ptrdiff_t n, ptrdiff_t channels, S *out,
                           ptrdiff_t channel_step, ptrdiff_t step, const T *bias, int relu)
{
    const ptrdiff_t most = xent_max(1, UNPACKED_BYTES / (sums_step * (ptrdiff_t)sizeof(T)) / LANES) * LANES;
    for (ptrdiff_t p = 0, some; p < n; p += some) {
        some = n - p < most + LANES ? n - p : most; /* no rest that is less than a vector */
        for (ptrdiff_t c = 0; c < channels; c += PIECE)
            KERNEL(unpack_piece)(sums + p * sums_step + c, sums_step, some, xent_min(PIECE, channels - c),
                                 out + c * channel_step + p * step, channel_step, step, bias ? bias + c : NULL, relu);
    }
}

#endif
