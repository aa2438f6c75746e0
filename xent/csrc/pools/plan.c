/* plan.c: how pooling is cut into chunks of planes, and how the rows of an image lie in scratch (pool.h). */
#include "images/window.h"
#include "plan.h"

enum {
    FEW_ROWS = 4,            /* two additions of each */
    FEW_TAPS = 64,           /* of a row: what rounding takes from them is itself added up in the type */
    FEW_ROUNDINGS = 4,       /* of a gradient of max pooling */
    FEW_IN_TURN = 9,         /* terms that are added up one after the other, by eight roundings of half an ulp */
    LARGEST_COUNT = 1 << 24, /* the integers up to here are floats */
    /* How gradients of max pooling are cut, by measurement: */
    NARROW = 8,             /* pixels of a row's phase: half a vector, of the longest, would be at work on one row */
    KEPT = 4096,            /* outputs that are kept at a time: with their places, what the nearest cache holds */
    LEAST_BAND = 8,         /* rows of them: of a band of less, too many would be kept twice, */
    LARGEST_BAND = 1 << 16, /* unless they are so long */
    BLOCK = 512,            /* outputs that are scattered at a time */
    STRIP = 4096,           /* and the pixels that they go to */
    LARGEST_STRIP = 1 << 17 /* doubles: a MiB */
};

/* Terms of a pixel at most: output rows whose windows see it, and outputs of each. */
typedef struct {
    ptrdiff_t rows, columns;
} xent_terms;
static xent_terms most_terms(const xent_window *w)
{
    const ptrdiff_t step_h = w->stride_h / xent_common_divisor(w->stride_h, w->dilation_h);
    const ptrdiff_t step_w = w->stride_w / xent_common_divisor(w->stride_w, w->dilation_w);
    return (xent_terms){.rows = xent_ceil_div(w->kernel_h, step_h), .columns = xent_ceil_div(w->kernel_w, step_w)};
}

/* Whether no sum has so many terms that the type itself could not hold it within the bound of pool.h. */
static int has_few_terms(const xent_pool_args *a)
{
    const xent_window *w = &a->window;
    const xent_terms terms = most_terms(w);
    if (!a->average) return terms.rows - 1 + terms.columns - 1 <= FEW_ROUNDINGS;
    if (xent_max(w->kernel_h, w->kernel_w) > LARGEST_COUNT || w->kernel_h * w->kernel_w > LARGEST_COUNT) return 0;
    return (a->grad ? terms.rows : w->kernel_h) <= FEW_ROWS && a->taps <= FEW_TAPS && a->divisor <= LARGEST_COUNT;
}

static ptrdiff_t whole_vectors(ptrdiff_t n) { return xent_ceil_div(n, XENT_MOST_LANES) * XENT_MOST_LANES; }

/* Narrow planes are worked on side by side: how many, where so many rows of theirs are kept at a time. Between planes are
 * as many zeros as their pixels look for. */
static void put_abreast(xent_pool_args *a, ptrdiff_t rows)
{
    const xent_window *w = &a->window;
    const ptrdiff_t pixels = xent_ceil_div(w->width, w->stride_w);
    a->plane_pitch = xent_max(w->out_w + xent_max(0, a->after - 1), pixels + a->before);
    a->abreast = pixels > NARROW ? 1 : xent_max(1, xent_min(a->chunk, KEPT / (a->plane_pitch * rows)));
}

/* Bands of output rows, those of narrow planes side by side. Returns its bytes, or 0. */
static ptrdiff_t plan_bands(xent_pool_args *a, int dtype)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = xent_real_size(dtype);
    const ptrdiff_t before = xent_max(0, a->after - 1), steps = xent_ceil_div(w->height + w->top, w->stride_h);
    /* The windows that have a loop of their own, which is faster than each output on its own. */
    if (!a->few || a->taps < 2 || a->taps > w->stride_w + 2 || w->kernel_h != a->taps) return 0;
    if (w->stride_w > 2 || w->stride_h != w->stride_w || w->dilation_h > 1 || w->dilation_w > 1) return 0;
    const ptrdiff_t again = xent_ceil_div(w->kernel_h, w->stride_h) - 1;
    put_abreast(a, steps);
    /* Side by side they are slower than each output on its own, by measurement, but for those of 16 bits. */
    if (a->abreast > 1 && w->stride_w == 2 && xent_stored_size(dtype) == size) {
        a->abreast = 1;
        return 0;
    }
    /* Room for the rest of a vector behind the last. */
    a->row_pitch = whole_vectors(before + a->abreast * a->plane_pitch) + XENT_MOST_LANES;
    a->band = xent_max(1, xent_max(KEPT / a->row_pitch, xent_min(LEAST_BAND, LARGEST_BAND / a->row_pitch)));
    a->band = a->abreast > 1 ? steps : xent_min(steps, a->band);
    a->block_room = a->abreast > 1 ? whole_vectors(a->abreast * w->out_h * w->out_w) + XENT_MOST_LANES : 0;
    a->way = XENT_BY_BANDS, a->lead = before;
    a->kept_room = (a->band + again + 1) * a->row_pitch + whole_vectors(a->before);
    a->line_pitch = a->abreast == 1 ? 0 : w->stride_w * a->row_pitch;
    return (2 * a->block_room + 2 * a->kept_room + xent_min(w->height, a->band * w->stride_h) * a->line_pitch) * size;
}

/* Whether every window lies inside of the image. */
static int is_inside(const xent_window *w)
{
    const ptrdiff_t down = (w->kernel_h - 1) * w->dilation_h + 1, across = (w->kernel_w - 1) * w->dilation_w + 1;
    return w->top == 0 && w->left == 0 && (w->out_h - 1) * w->stride_h + down <= w->height &&
           (w->out_w - 1) * w->stride_w + across <= w->width;
}

/* Each output on its own. Returns its bytes, or 0: where numbers of cells or pixels leave 32 bits, or a strip would be
 * too large. */
static ptrdiff_t plan_scatter(xent_pool_args *a, int dtype)
{
    const xent_window *w = &a->window;
    const ptrdiff_t reach = (w->kernel_h - 1) * w->dilation_h + 1, pixels = w->height * w->width;
    const ptrdiff_t across = (w->kernel_w - 1) * w->dilation_w + 1, size = xent_real_size(dtype);
    const xent_terms terms = most_terms(w);
    a->alone = (w->out_h == 1 || reach <= w->stride_h) && (w->out_w == 1 || a->taps <= a->period);
    a->inside = is_inside(w);
    a->sums = terms.rows > FEW_IN_TURN || terms.columns > FEW_IN_TURN / terms.rows ? XENT_IN_DOUBLES
              : size == xent_stored_size(dtype)                                    ? XENT_IN_IMAGE
                                                                                   : XENT_IN_NUMBERS;
    if (a->alone) a->sums = XENT_IN_IMAGE;
    if (xent_max(reach + w->height + w->top, across + w->width + w->left) > INT32_MAX) return 0;
    if (w->kernel_h * a->pitch > INT32_MAX || pixels > INT32_MAX / 2) return 0;
    const ptrdiff_t planes = xent_min(a->chunk, xent_min(BLOCK / (w->out_h * w->out_w), STRIP / pixels));
    a->block = planes > 0 ? planes * w->out_h : xent_min(w->out_h, xent_max(1, BLOCK / w->out_w));
    a->strip = planes > 0 ? planes * pixels : w->width * xent_min(w->height, 2 * (a->block * w->stride_h + reach));
    if (a->sums == XENT_IN_IMAGE) a->strip = 0;
    const ptrdiff_t number = a->sums == XENT_IN_NUMBERS ? size : size == 8 ? 16 : 8;
    a->strip_room = a->strip ? xent_ceil_div(number * (whole_vectors(a->strip) + XENT_MOST_LANES), 8) : 0;
    if (a->strip_room > LARGEST_STRIP) return 0;
    a->way = XENT_SCATTERED;
    a->block_room = whole_vectors(a->block * w->out_w) + XENT_MOST_LANES;
    return 2 * a->block_room * size + 4 * a->block_room * (ptrdiff_t)sizeof(int32_t) +
           a->strip_room * (ptrdiff_t)sizeof(double);
}

/* Straight from places that are told, of 2 x 2 windows inside of the image that lie apart: behind other rows is room for
 * two lines of pixels. Returns its bytes, or 0. */
static ptrdiff_t plan_direct(xent_pool_args *a, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const int pairs = w->kernel_h == 2 && w->kernel_w == 2 && w->stride_w == 2 && w->dilation_w == 1;
    const int apart = w->dilation_h == 1 && (w->out_h == 1 || w->stride_h >= 2);
    if (!a->places || !pairs || !apart || !is_inside(w)) return 0;
    a->way = XENT_DIRECT;
    a->line_pitch = 2 * (XENT_FLAT + XENT_MOST_LANES);
    return 2 * a->line_pitch * size;
}

/* How the gradients of max pooling come to their pixels. Returns the bytes that this takes, but for those of rows. */
static ptrdiff_t plan_backward(xent_pool_args *a, int dtype)
{
    const ptrdiff_t direct = plan_direct(a, xent_real_size(dtype));
    const ptrdiff_t by_bands = direct ? direct : plan_bands(a, dtype);
    return by_bands ? by_bands : plan_scatter(a, dtype);
}

/* Whether there is one window, which is the image: of a maximum, one whose places are floats. */
static int is_whole(const xent_pool_args *a)
{
    const xent_window *w = &a->window;
    if (w->out_h > 1 || w->out_w > 1 || w->top + w->height > w->kernel_h || w->left + w->width > w->kernel_w) return 0;
    return a->average || (w->dilation_h == 1 && w->dilation_w == 1 && w->height * w->width <= LARGEST_COUNT);
}

/* Rows of an image that are in phases at a time. */
static ptrdiff_t rows_held(const xent_pool_args *a)
{
    if (a->whole) return 0;
    if (a->average) return a->grad ? 0 : a->few ? 1 : 2; /* sums, and what is left of them */
    return a->grad && a->places ? 0 : a->grad || a->places ? HELD : 1;
}

/* How the rows of pool.h lie in scratch. Returns its size in bytes. */
static ptrdiff_t plan_scratch(xent_pool_args *a, int dtype)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = xent_real_size(dtype);
    const ptrdiff_t last = (w->out_w - 1) * w->stride_w - w->left; /* where the last window begins */
    const ptrdiff_t end = xent_min(w->kernel_w, xent_ceil_div(w->width + w->left, w->dilation_w));
    a->first_tap = last < 0 ? xent_ceil_div(-last, w->dilation_w) : 0;
    a->taps = xent_max(end - a->first_tap, 0);
    a->phases = w->stride_w <= xent_max(a->taps, 2) ? w->stride_w : a->taps;
    a->before = xent_max(0, xent_ceil_div(w->left - a->first_tap * w->dilation_w, w->stride_w));
    a->after = xent_max(0, xent_floor_div((a->first_tap + a->taps - 1) * w->dilation_w - w->left, w->stride_w) + 1);
    const ptrdiff_t outputs = xent_max(w->out_w, xent_ceil_div(w->width, w->stride_w)), pair = 2 * XENT_MOST_LANES;
    a->period = w->stride_w / xent_common_divisor(w->stride_w, w->dilation_w);
    a->whole = is_whole(a);
    a->few = has_few_terms(a);
    a->abreast = 1;
    if (a->average && a->grad && a->few && !a->whole) put_abreast(a, LEAST_BAND);
    a->span = whole_vectors(a->before + a->after) + whole_vectors(xent_max(outputs, a->abreast * a->plane_pitch));
    a->line = xent_ceil_div(a->abreast == 1 ? w->width : a->abreast * a->plane_pitch * w->stride_w, pair) * pair + pair;
    a->held = rows_held(a);
    /* Without places to be told, the numbers of the columns that are seen: they cannot overflow. */
    a->first_number = a->places ? a->first_tap : 0;
    a->pitch = a->places ? w->kernel_w : xent_max(1, a->taps);
    a->way = XENT_BY_ROWS, a->alone = 0, a->ring = a->pairs = 0, a->strip = a->strip_room = 0;
    const ptrdiff_t blocks = !a->average && a->grad ? plan_backward(a, dtype) : 0;
    if (a->grad && a->way == XENT_BY_ROWS && !(a->average && !a->few)) {
        const ptrdiff_t reach = xent_ceil_div((w->kernel_h - 1) * w->dilation_h + 1, w->stride_h);
        /* one more, which is kept ahead of the rows that need it */
        for (a->ring = 1; a->ring < xent_min(w->out_h, reach + 1);) a->ring *= 2;
        a->pairs = a->ring;
    }
    return 2 * a->taps * (ptrdiff_t)sizeof(xent_tap) + a->pairs * (ptrdiff_t)sizeof(xent_pair) + blocks +
           (2 * a->line + (a->held * a->phases + 4 + 2 * a->ring) * a->span) * size;
}

static void swap(ptrdiff_t *a, ptrdiff_t *b)
{
    const ptrdiff_t was = *a;
    *a = *b, *b = was;
}

/* An image of one column lies in memory as one of one row, along which there are vectors. */
static void turn_column(xent_pool_args *a)
{
    xent_window *w = &a->window;
    if (w->width > 1 || w->kernel_w > 1 || w->out_w > 1 || w->left > 0) return;
    swap(&w->height, &w->width), swap(&w->kernel_h, &w->kernel_w);
    swap(&w->stride_h, &w->stride_w), swap(&w->dilation_h, &w->dilation_w);
    swap(&w->top, &w->left), swap(&a->bottom, &a->right);
    swap(&w->out_h, &w->out_w);
}

xent_plan xent_plan_pool(xent_pool_args *a, int dtype)
{
    if (a->planes == 0) return (xent_plan){.chunks = 0};
    turn_column(a);
    a->chunk = xent_min(a->planes, xent_max(1, XENT_CHUNK / (a->window.height * a->window.width)));
    return (xent_plan){.chunks = xent_ceil_div(a->planes, a->chunk), .scratch_size = plan_scratch(a, dtype)};
}
