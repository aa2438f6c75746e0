/* plan.c: how elements are cut into chunks, by shapes alone. */
#include "plan.h"

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

xent_plan xent_plan_sigmoid(xent_sigmoid_args *a)
{
    a->chunk = XENT_CHUNK;
    return (xent_plan){.chunks = xent_ceil_div(a->size, a->chunk)};
}
