/* pool_plan.c: how pooling is cut into chunks of planes, and how the rows of an image lie in scratch (pool.h). */
#include "plan.h"

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
    a->after = xent_max(0, ((a->first_tap + a->taps) * w->dilation_w - w->left) / w->stride_w + 1);
    const ptrdiff_t outputs = xent_max(w->out_w, xent_ceil_div(w->width, w->stride_w)), pair = 2 * XENT_MOST_LANES;
    a->span = a->before + a->after + xent_ceil_div(outputs, XENT_MOST_LANES) * XENT_MOST_LANES;
    a->line = xent_ceil_div(w->width, pair) * pair;
    return 2 * a->taps * (ptrdiff_t)sizeof(xent_tap) + (a->line + (HELD * a->phases + 4) * a->span) * size;
}

xent_plan xent_plan_pool(xent_pool_args *a, int dtype)
{
    a->chunk = xent_max(1, XENT_CHUNK / (a->window.height * a->window.width));
    return (xent_plan){.chunks = xent_ceil_div(a->planes, a->chunk),
                       .scratch_size = plan_scratch(a, xent_real_size(dtype))};
}
