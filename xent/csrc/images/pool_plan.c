/* pool_plan.c: how pooling is cut into chunks of planes, and how the rows of an image lie in scratch (pool.h). */
#include "images/window.h"
#include "plan.h"

enum {
    FEW_ROWS = 4,             /* two additions of each */
    FEW_TAPS = 64,            /* of a row: what rounding takes from them is itself added up in the type */
    FEW_ROUNDINGS = 4,        /* of a gradient of max pooling */
    LARGEST_DIVISOR = 1 << 24 /* the integers up to here are floats */
};

/* Whether no sum has so many terms that the type itself could not hold it within the bound of pool.h. */
static int has_few_terms(const xent_pool_args *a)
{
    const xent_window *w = &a->window;
    const ptrdiff_t step_h = w->stride_h / xent_common_divisor(w->stride_h, w->dilation_h);
    const ptrdiff_t step_w = w->stride_w / xent_common_divisor(w->stride_w, w->dilation_w);
    const ptrdiff_t rows = xent_ceil_div(w->kernel_h, step_h), columns = xent_ceil_div(w->kernel_w, step_w);
    if (!a->average) return rows - 1 + columns - 1 <= FEW_ROUNDINGS;
    if (xent_max(w->kernel_h, w->kernel_w) > LARGEST_DIVISOR || w->kernel_h * w->kernel_w > LARGEST_DIVISOR) return 0;
    return (a->grad ? rows : w->kernel_h) <= FEW_ROWS && a->taps <= FEW_TAPS && a->divisor <= LARGEST_DIVISOR;
}

/* How the rows of pool.h lie in scratch. Returns its size in bytes. */
static ptrdiff_t plan_scratch(xent_pool_args *a, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t last = (w->out_w - 1) * w->stride_w - w->left; /* where the last window begins */
    const ptrdiff_t end = xent_min(w->kernel_w, xent_ceil_div(w->width + w->left, w->dilation_w));
    a->first_tap = last < 0 ? xent_ceil_div(-last, w->dilation_w) : 0;
    a->taps = xent_max(end - a->first_tap, 0);
    a->phases = w->stride_w <= xent_max(a->taps, 2) ? w->stride_w : a->taps;
    a->before = xent_max(0, xent_ceil_div(w->left - a->first_tap * w->dilation_w, w->stride_w));
    a->after = xent_max(0, xent_floor_div((a->first_tap + a->taps - 1) * w->dilation_w - w->left, w->stride_w) + 1);
    const ptrdiff_t outputs = xent_max(w->out_w, xent_ceil_div(w->width, w->stride_w)), pair = 2 * XENT_MOST_LANES;
    a->span = a->before + a->after + xent_ceil_div(outputs, XENT_MOST_LANES) * XENT_MOST_LANES;
    a->line = xent_ceil_div(w->width, pair) * pair;
    a->period = w->stride_w / xent_common_divisor(w->stride_w, w->dilation_w);
    a->whole = w->out_h == 1 && w->out_w == 1 && w->top + w->height <= w->kernel_h && w->left + w->width <= w->kernel_w;
    a->few = has_few_terms(a);
    a->ring = 0;
    if (a->grad && !(a->average && !a->few)) {
        const ptrdiff_t reach = xent_ceil_div((w->kernel_h - 1) * w->dilation_h + 1, w->stride_h);
        /* one more, which is kept ahead of the rows that need it */
        for (a->ring = 1; a->ring < xent_min(w->out_h, reach + 1);) a->ring *= 2;
    }
    /* Without places to be told, the numbers of the columns that are seen: they cannot overflow. */
    a->first_number = a->places ? a->first_tap : 0;
    a->pitch = a->places ? w->kernel_w : a->taps;
    return 2 * a->taps * (ptrdiff_t)sizeof(xent_tap) + a->ring * (ptrdiff_t)sizeof(xent_pair) +
           (4 * a->line + (HELD * a->phases + 4 + 2 * a->ring) * a->span) * size;
}

xent_plan xent_plan_pool(xent_pool_args *a, int dtype)
{
    if (a->planes == 0) return (xent_plan){.chunks = 0};
    a->chunk = xent_max(1, XENT_CHUNK / (a->window.height * a->window.width));
    return (xent_plan){.chunks = xent_ceil_div(a->planes, a->chunk),
                       .scratch_size = plan_scratch(a, xent_real_size(dtype))};
}
