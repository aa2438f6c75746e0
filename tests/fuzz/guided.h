/* guided.h: what the programs of guided.c are made of: choices that bytes make, memory with guards, and calls that are made
 * twice.
 *
 * A call is made twice: with its chunks in order and in the opposite one, with scratch and results full of one byte and of
 * another. Both give the same bits, so nothing depends on the order, on what nobody wrote, or was left out; nothing is
 * written beside the elements of the results, and inputs are as before. A sanitizer sees what is read beside them.
 */
#ifndef GUIDED_H
#define GUIDED_H

#include "base.h"
#include "table.h"

#include "kernel_calls.h"

#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(data, size) ((void)(data), (void)(size))
#define __asan_unpoison_memory_region(data, size) ((void)(data), (void)(size))
#endif

#define COUNT(array) ((ptrdiff_t)(sizeof(array) / sizeof *(array)))

/* ---- choices ---- */

static const uint8_t *input, *input_end;

/* The next byte; behind the last, 0. */
static ptrdiff_t byte(void) { return input < input_end ? *input++ : 0; }
static ptrdiff_t draw(ptrdiff_t n)
{
    const ptrdiff_t high = n > 256 ? byte() : 0; /* before the other, whatever the compiler */
    return (high << 8 | byte()) % n;
}
static int seldom(void) { return draw(16) == 15; }
static int often(void) { return draw(4) != 3; }

/* A length from 1 on, short ones first; at most `most`. */
static ptrdiff_t draw_size(ptrdiff_t most)
{
    const ptrdiff_t b = byte();
    return xent_min(1 + (b < 192 ? b % 24 : b < 240 ? draw(400) : draw(65536)), most);
}

/* An option that is a number: 0 or 1 (`plain`), some that people use, some from which nothing good comes. */
static double draw_number(double plain)
{
    static const double used[] = {0.7, 2, 0.5, 3, 0.01, 30, -1, 1.5};
    static const double odd[] = {0x1p-60, 0x1p60, 1e-300, 1e300, -1e300, 0, 0x1p-1074, -0.0};
    const ptrdiff_t b = byte();
    return b < 96 ? plain : b < 224 ? used[b % COUNT(used)] : odd[b % COUNT(odd)];
}
static double draw_positive(double plain)
{
    const double number = draw_number(plain);
    return number > 0 ? number : plain;
}

/* ---- memory ---- */

enum { GUARD = 64, MOST_BLOCKS = 40, WITHOUT_TYPE = -1 };

/* Memory between guards. `owned` says which of its bytes are results: NULL of what is only read. */
typedef struct {
    char *memory, *data;
    ptrdiff_t bytes;
    int type;     /* of results: NaNs of it count as one */
    int is_input; /* what it holds before a call matters to it */
    uint8_t *owned;
    char *before, *made; /* its bytes before the call, and after the first one */
} block;

static block blocks[MOST_BLOCKS];
static int block_count;
static const char *name_of_call;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", name_of_call, what);
    abort();
}

static void *memory_for(ptrdiff_t bytes)
{
    void *memory = malloc((size_t)xent_max(bytes, 1));
    if (!memory) abort();
    return memory;
}

/* Memory that begins `lead` bytes behind a cache line. */
static block *add_block(ptrdiff_t bytes, ptrdiff_t lead, int type)
{
    if (block_count == MOST_BLOCKS) abort();
    block *b = blocks + block_count++;
    const ptrdiff_t room = (bytes + lead + 3 * GUARD - 1) / GUARD * GUARD;
    *b = (block){.memory = aligned_alloc(GUARD, (size_t)room), .bytes = bytes, .type = type};
    if (!b->memory) abort();
    b->data = b->memory + GUARD + lead;
    memset(b->memory, 0xC3, (size_t)room);
    __asan_poison_memory_region(b->memory, (size_t)(GUARD + lead) / 8 * 8);
    __asan_poison_memory_region(b->data + bytes, (size_t)(room - (GUARD + lead) - bytes));
    return b;
}

static void close_block(block *b)
{
    const ptrdiff_t before = b->data - b->memory;
    const ptrdiff_t room = (b->bytes + before - GUARD + 3 * GUARD - 1) / GUARD * GUARD;
    __asan_unpoison_memory_region(b->memory, (size_t)room);
    for (ptrdiff_t k = 0; k < room; k++)
        if ((k < before || k >= before + b->bytes) && b->memory[k] != (char)0xC3) fail("a guard was written");
    free(b->memory), free(b->owned), free(b->before), free(b->made);
}

static void close_blocks(int down_to)
{
    while (block_count > down_to) close_block(blocks + --block_count);
}

/* Where an array begins: on a cache line, or some elements behind one. */
static ptrdiff_t draw_lead(ptrdiff_t itemsize) { return often() ? 0 : itemsize * draw(GUARD / itemsize); }

/* All of a block are results. */
static void own_all(block *b)
{
    b->owned = memory_for(b->bytes);
    memset(b->owned, 1, (size_t)b->bytes);
}

/* Results without gaps. */
static void *results(int type, ptrdiff_t n, ptrdiff_t itemsize)
{
    block *b = add_block(n * itemsize, draw_lead(itemsize), type);
    own_all(b);
    return b->data;
}
static void *doubles_out(ptrdiff_t n) { return results(XENT_F64, n, 8); }

/* ---- numbers ---- */

enum { LOGITS, PROBS, LOG_PROBS, FACTORS, POSITIVE_FACTORS };

static uint64_t special(int type, uint64_t ordinary)
{
    const uint64_t inf = infinity_of(type), minus = sign_bit(type);
    const uint64_t numbers[] = {0,
                                minus,
                                inf,
                                inf | minus,
                                inf + 1,
                                inf - 1,
                                (inf - 1) | minus,
                                1,
                                power_of_2(type, 0),
                                power_of_2(type, 7),
                                power_of_2(type, 7) | minus,
                                ordinary,
                                ordinary,
                                2,
                                ordinary ^ minus};
    return numbers[below((uint64_t)COUNT(numbers))];
}

static uint64_t ordinary(int type, int kind)
{
    static const int lowest[] = {-6, -7, -4, -2, -2}, highest[] = {4, 0, 4, 2, 2};
    uint64_t bits = power_of_2(type, lowest[kind] + (int)below((uint64_t)(highest[kind] - lowest[kind])));
    bits += below((uint64_t)1 << formats[type].fraction);
    if (kind == LOG_PROBS || ((kind == LOGITS || kind == FACTORS) && below(2))) bits |= sign_bit(type);
    return bits;
}

/* Fill memory with numbers of a kind: ordinary ones, some or many that are not, any bits, all alike, or the input's own. */
static void fill(void *data, int type, ptrdiff_t n, int kind)
{
    enum { ORDINARY, SOME, MANY, ANY, ALIKE, OWN, STYLES };
    const ptrdiff_t style = draw(STYLES + 2);
    const uint8_t *from = input;
    state = (uint64_t)draw(65536);
    const uint64_t alike = ordinary(type, kind);
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t bits = style == ALIKE ? alike : ordinary(type, kind);
        if ((style == SOME && below(8) == 0) || (style == MANY && below(2))) bits = special(type, bits);
        if (style == ANY && kind != POSITIVE_FACTORS) bits = next();
        if (style == OWN && from < input_end) {
            const uint64_t own = *from++;
            bits = own < 16    ? special(type, bits)
                   : own < 128 ? bits
                               : own << (8 * formats[type].size - 8) | (bits >> 8);
            if (from == input_end) from = input;
        }
        if (kind == POSITIVE_FACTORS) bits &= ~sign_bit(type);
        put(data, type, i, bits);
    }
}

/* Numbers without gaps that are read. */
static void *numbers(int type, ptrdiff_t n, int kind)
{
    block *b = add_block(n * formats[type].size, draw_lead(formats[type].size), type);
    fill(b->data, type, n, kind);
    b->is_input = 1;
    return b->data;
}
static double *doubles(ptrdiff_t n, int kind) { return numbers(XENT_F64, n, kind); }
static void *maybe_numbers(int type, ptrdiff_t n, int kind) { return draw(2) ? numbers(type, n, kind) : NULL; }

/* Labels, a few of them -1, and seldom some that are none: what another thread may have made of them. */
static int64_t *labels(ptrdiff_t n, ptrdiff_t classes)
{
    block *b = add_block(n * 8, draw_lead(8), WITHOUT_TYPE);
    const int are_bad = seldom();
    state = (uint64_t)draw(65536);
    for (ptrdiff_t i = 0; i < n; i++) {
        int64_t label = below(7) && classes ? (int64_t)below((uint64_t)classes) : -1;
        if (are_bad && below(4) == 0) label = (int64_t)next(), label >>= below(64);
        memcpy(b->data + 8 * i, &label, 8);
    }
    b->is_input = 1;
    return (int64_t *)(void *)b->data;
}

/* ---- arrays of one shape ---- */

enum { MOST_NDIM = 4 };

/* A shape, and the order of its axes in memory, the innermost last. */
static struct {
    int ndim, axis, type, tight; /* tight: in C order without gaps, as copies are */
    ptrdiff_t shape[MOST_NDIM], classes, count;
    int order[MOST_NDIM];
} form;

static void draw_form(ptrdiff_t least_classes, int apart)
{
    enum { MOST = 24000 };
    form.type = (int)draw(XENT_DTYPES);
    form.ndim = 1 + (int)draw(MOST_NDIM), form.axis = (int)draw(form.ndim), form.tight = 0;
    form.classes = seldom() ? least_classes : draw_size(MOST);
    form.count = 1;
    for (int k = 0; k < form.ndim; k++) {
        const ptrdiff_t room = MOST / xent_max(form.classes, 1) / form.count;
        form.shape[k] = k == form.axis ? form.classes : draw_size(xent_max(room, 1));
        if (k != form.axis) form.count *= form.shape[k];
    }
    const int turns = (int)draw(form.ndim), lies_last = apart && draw(2);
    for (int k = 0; k < form.ndim; k++) form.order[k] = (k + turns) % form.ndim;
    for (int k = 0; k < form.ndim && lies_last; k++)
        if (form.order[k] == form.axis)
            form.order[k] = form.order[form.ndim - 1], form.order[form.ndim - 1] = form.axis;
}

/* Where an array of the form lies: memory for its strides, which outlive it by a call. */
static xent_array new_array(int type, int is_written)
{
    static ptrdiff_t strides[8][MOST_NDIM];
    static int used;
    ptrdiff_t *stride = strides[used++ % 8];
    ptrdiff_t step = 1, first = 0;
    const int loose = !form.tight && !often();
    for (int k = form.ndim - 1; k >= 0; k--) {
        const int axis = form.tight ? k : form.order[k];
        const ptrdiff_t size = form.shape[axis], how = loose ? byte() : 0;
        if (loose && how % 4 == 1) step += how / 4 % 4;
        stride[axis] = step * formats[type].size;
        if (loose && how == 3 && !is_written) stride[axis] = 0;
        if (loose && how == 7) stride[axis] = -stride[axis], first += (size - 1) * step;
        if (stride[axis] != 0) step *= size;
    }
    block *b = add_block(xent_max(step, 1) * formats[type].size, draw_lead(formats[type].size), type);
    return (xent_array){b->data + first * formats[type].size, formats[type].size, form.ndim, form.shape, stride};
}

static xent_array read_array(int type, int kind)
{
    const xent_array a = new_array(type, 0);
    block *b = blocks + block_count - 1;
    fill(b->data, type, b->bytes / formats[type].size, kind), b->is_input = 1;
    return a;
}

/* Say which bytes of the last block, or of `b`, are elements of the array. */
static void own(block *b, const xent_array *a)
{
    ptrdiff_t index[MOST_NDIM] = {0}, n = 1;
    if (!b->owned) b->owned = memory_for(b->bytes);
    memset(b->owned, 0, (size_t)b->bytes);
    for (int k = 0; k < a->ndim; k++) n *= a->shape[k];
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t at = (char *)a->data - b->data;
        for (int k = 0; k < a->ndim; k++) at += index[k] * a->strides[k];
        memset(b->owned + at, 1, (size_t)a->itemsize);
        for (int k = a->ndim - 1; k >= 0 && ++index[k] == a->shape[k]; k--) index[k] = 0;
    }
}

static xent_array written_array(int type)
{
    const xent_array a = new_array(type, 1);
    own(blocks + block_count - 1, &a);
    return a;
}

static int repeats(const xent_array *a)
{
    for (int k = 0; k < a->ndim; k++)
        if (a->strides[k] == 0 && a->shape[k] > 1) return 1;
    return 0;
}

/* ---- calls ---- */

enum { FIRST_FILLER = 0x5A, SECOND_FILLER = 0xA5 };

static int second, leaves_some; /* whether this is the second time; whether a kernel left positions to others */
static int is_partial;          /* some results may be left out */
static int leaves_anything;     /* and where it did, results may be anything */
static int is_void;             /* the call would end with an error: nobody looks at its results */

static void *scratch_for(ptrdiff_t size)
{
    if (size < 0 || size > (ptrdiff_t)1 << 30) fail("scratch of an odd size");
    return size ? add_block(size, 0, WITHOUT_TYPE)->data : NULL;
}

static void run_chunks(xent_kernel kernel, const void *args, ptrdiff_t chunks, ptrdiff_t scratch_size)
{
    const int outer = block_count;
    void *scratch = scratch_for(scratch_size);
    for (ptrdiff_t k = 0; k < chunks; k++) {
        if (scratch) memset(scratch, second ? SECOND_FILLER : 0, (size_t)scratch_size);
        kernel(args, second ? chunks - 1 - k : k, scratch);
    }
    close_blocks(outer);
}

static void run(xent_kernel kernel, const void *args, xent_plan plan)
{
    run_chunks(kernel, args, plan.chunks, plan.scratch_size);
}

static void keep_before(block *b)
{
    b->before = memory_for(b->bytes), b->made = memory_for(b->bytes);
    memcpy(b->before, b->data, (size_t)b->bytes);
}

static void prepare(block *b, int filler)
{
    if (b->is_input)
        memcpy(b->data, b->before, (size_t)b->bytes);
    else
        memset(b->data, filler, (size_t)b->bytes);
}

static void check_untouched(const block *b, int filler)
{
    for (ptrdiff_t k = 0; k < b->bytes; k++)
        if (!(b->owned && b->owned[k]) && b->data[k] != (b->is_input ? b->before[k] : (char)filler))
            fail(b->owned ? "written beside a result" : "an input was written");
}

static int both_nan(const block *b, ptrdiff_t at)
{
    if (b->type == WITHOUT_TYPE) return 0;
    const ptrdiff_t size = formats[b->type].size, i = at / size;
    const uint64_t minus = sign_bit(b->type), inf = infinity_of(b->type);
    return (bits_at(b->data, b->type, i) & ~minus) > inf && (bits_at(b->made, b->type, i) & ~minus) > inf;
}

static uint64_t digest;

/* The same bits both times; the digest of what was made, NaNs being alike. */
static void compare(const block *b)
{
    for (ptrdiff_t k = 0; k < b->bytes && b->owned; k++)
        if (b->owned[k]) {
            const int nan = both_nan(b, k);
            if (b->data[k] != b->made[k] && !nan) {
                fprintf(stderr, "byte %td of %td, block %td of %d: ", k, b->bytes, b - blocks, block_count);
                fail("the same call gave other bits, or left some out");
            }
            digest = (digest ^ (nan ? 0xFF : (uint8_t)b->data[k])) * 0x100000001b3;
        }
}

/* Make a call twice, over all blocks there are. */
static void twice(void (*call)(void *), void *args)
{
    leaves_some = is_void = 0;
    for (int k = 0; k < block_count; k++) keep_before(blocks + k);
    for (second = 0; second < 2; second++) {
        const int filler = second && !leaves_some && !is_partial ? SECOND_FILLER : FIRST_FILLER, count = block_count;
        for (int k = 0; k < count; k++)
            if (blocks[k].owned) prepare(blocks + k, filler);
        call(args);
        for (int k = 0; k < count; k++) check_untouched(blocks + k, filler);
        for (int k = 0; k < count && !second; k++) memcpy(blocks[k].made, blocks[k].data, (size_t)blocks[k].bytes);
    }
    is_void |= leaves_some && leaves_anything;
    for (int k = 0; k < block_count && !is_void; k++) compare(blocks + k);
}

#endif
