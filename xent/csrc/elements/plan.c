/* plan.c: how elements are cut into chunks, by shapes alone. */
#include "plan.h"
#include "wide.h"

xent_plan xent_plan_elements(xent_element_losses_args *a)
{
    a->piece = XENT_CHUNK;
    a->chunk = xent_max(XENT_CHUNK / xent_max(a->length, 1), 1);
    return (xent_plan){.chunks = xent_ceil_div(a->rows, a->chunk) * xent_ceil_div(a->length, a->piece)};
}

xent_plan xent_plan_map(xent_map_args *a)
{
    a->chunk = XENT_CHUNK;
    return (xent_plan){.chunks = xent_ceil_div(a->size, a->chunk)};
}

/* Which logits sigmoid.h takes for odd, of floats (`single`) or doubles. Up to `plain` the product of e^-|z|, of its power
 * gamma, and of factors up to the odd ones is a normal number; from `nothing` on it rounds to 0, whatever the factor of the
 * gradient is. A term beyond `far` times such factors may be infinite. */
static xent_odd_logits odd_logits(const xent_sigmoid_args *a, int single)
{
    const double ln2 = 0.6931471805599453, weights = (a->weight.data != NULL) + (a->pos_weight.data != NULL);
    const double least = a->alpha_1 > 0 && (a->alpha_0 <= 0 || a->alpha_1 < a->alpha_0) ? a->alpha_1 : a->alpha_0;
    const double digits =
        (single ? 125 - 20 * weights : 1021 - 200 * weights) * ln2 + (double)wide_of(least).exponent * ln2;
    return (xent_odd_logits){
        .plain = digits / (1 + a->gamma),
        .nothing =
            single ? 250 : 2100, /* e^-250 < 2^-150 of float16 and float32 / 2^(128 + 2 * 20), and so of doubles */
        .far = single ? 0x1p60 : 0x1p400,
    };
}

xent_plan xent_plan_sigmoid(xent_sigmoid_args *a, int dtype)
{
    a->odd = odd_logits(a, dtype != XENT_F64), a->odd_in_doubles = odd_logits(a, 0);
    a->chunk = XENT_CHUNK;
    return (xent_plan){.chunks = xent_ceil_div(a->size, a->chunk)};
}
