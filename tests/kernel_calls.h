/* kernel_calls.h: what the programs same_bits.c and image_races.c share: numbers made of integers, bit by bit, and
 * kernels that are called as the bridge calls them, on one thread or on several.
 */
#include "base.h"
#include "table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers by their bits ---- */

/* How floats lie in memory: bytes, bits of the fraction, what is added to exponents. */
static const struct {
    const char *name;
    int size, fraction, bias;
} formats[] = {[XENT_F32] = {"f32", 4, 23, 127},
               [XENT_F64] = {"f64", 8, 52, 1023},
               [XENT_F16] = {"f16", 2, 10, 15},
               [XENT_BF16] = {"bf16", 2, 7, 127}};

static int real_of(int type) { return type == XENT_F64 ? XENT_F64 : XENT_F32; }

static uint64_t state;

/* The next integer of SplitMix64. */
static uint64_t next(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n) { return next() % n; }

static void put(void *array, int type, ptrdiff_t i, uint64_t bits)
{
    memcpy((char *)array + i * formats[type].size, &bits, (size_t)formats[type].size); /* little-endian */
}

static uint64_t bits_at(const void *array, int type, ptrdiff_t i)
{
    uint64_t bits = 0;
    memcpy(&bits, (const char *)array + i * formats[type].size, (size_t)formats[type].size);
    return bits;
}

static uint64_t sign_bit(int type) { return (uint64_t)1 << (8 * formats[type].size - 1); }
static uint64_t infinity_of(int type) { return (uint64_t)(2 * formats[type].bias + 1) << formats[type].fraction; }
static uint64_t power_of_2(int type, int exponent)
{
    return (uint64_t)(formats[type].bias + exponent) << formats[type].fraction;
}

enum { POSITIVE, NEGATIVE, ANY_SIGN };

/* n numbers of sizes from 2^lowest to 2^highest. */
static void *make(int type, ptrdiff_t n, int lowest, int highest, int sign)
{
    void *array = aligned_alloc(64, (size_t)(n * 8 + 64) / 64 * 64);
    if (!array) abort();
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t bits = power_of_2(type, lowest + (int)below((uint64_t)(highest - lowest)));
        bits += below((uint64_t)1 << formats[type].fraction);
        if (sign == NEGATIVE || (sign == ANY_SIGN && below(2))) bits |= sign_bit(type);
        put(array, type, i, bits);
    }
    return array;
}

/* ---- chunks ---- */

/* The chunks of a call, and the first that nobody has taken. */
typedef struct {
    xent_kernel kernel;
    const void *args;
    ptrdiff_t chunks, scratch_size, next;
} job;

static void *work(void *of)
{
    job *j = of;
    void *scratch = aligned_alloc(64, (size_t)(j->scratch_size + 127) / 64 * 64);
    if (!scratch) abort();
    for (ptrdiff_t k; (k = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->chunks;)
        j->kernel(j->args, k, scratch);
    free(scratch);
    return NULL;
}

/* All chunks of a kernel, on so many threads: on this one alone if it is one, or if there is one chunk. */
static void run_on(int threads, xent_kernel kernel, const void *args, ptrdiff_t chunks, ptrdiff_t scratch_size)
{
    enum { MOST = 64 };
    pthread_t others[MOST];
    job j = {kernel, args, chunks, scratch_size, 0};
    if (threads > MOST) abort();
    if (threads == 1 || chunks == 1) {
        work(&j);
        return;
    }
    for (int k = 0; k < threads; k++)
        if (pthread_create(others + k, NULL, work, &j) != 0) abort();
    for (int k = 0; k < threads; k++) pthread_join(others[k], NULL);
}
