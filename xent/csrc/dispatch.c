/* dispatch.c: which instruction sets were built, and which of them this machine can run. setup.py defines XENT_BUILT as
 * a list X(name) X(name) ..., the plainest first. */
#include "table.h"

#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

/* Registers that the operating system keeps for a thread, as XCR0 says (Intel's manual, volume 1, 13.1). */
enum {
    KEEPS_AVX = 0x06,    /* XMM and the upper halves of YMM */
    KEEPS_AVX512 = 0xE6, /* and masks, the upper halves of ZMM, registers 16 to 31 */
};

static unsigned kept_registers(void)
{
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
#ifdef __APPLE__
    low |= low & KEEPS_AVX ? KEEPS_AVX512 : 0; /* kept from their first use on, and not named before */
#endif
    return low;
}

static int has_all(unsigned of, unsigned bits) { return (of & bits) == bits; }

/* Not by __builtin_cpu_supports: what that asks, Clang does not have with Microsoft's libraries, and not every compiler
 * knows the name of f16c. */
static int has_avx2(unsigned *leaf_7, unsigned *kept)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) return 0;
    *kept = kept_registers();
    return has_all(*kept, KEEPS_AVX) && __get_cpuid_count(7, 0, &a, leaf_7, &c, &d) && has_all(*leaf_7, bit_AVX2);
}
#endif

#define X(isa) extern const xent_table xent_table_##isa;
XENT_BUILT
#undef X

static const struct {
    const char *name;
    const xent_table *table;
} built[] = {
#define X(isa) {#isa, &xent_table_##isa},
    XENT_BUILT
#undef X
};
enum { BUILT = sizeof built / sizeof built[0] };

static int can_run(const char *isa)
{
#if defined(__x86_64__) || defined(__i386__)
    unsigned leaf_7, kept;
    if (strcmp(isa, "avx512") == 0)
        return has_avx2(&leaf_7, &kept) && has_all(kept, KEEPS_AVX512) &&
               has_all(leaf_7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
    if (strcmp(isa, "avx2") == 0) return has_avx2(&leaf_7, &kept);
#endif
    (void)isa;
    return 1; /* the baseline, and NEON, which every 64-bit ARM has */
}

const char *xent_isa_name(int index, int *usable)
{
    if (index < 0 || index >= BUILT) return NULL;
    *usable = can_run(built[index].name);
    return built[index].name;
}

const xent_table *xent_find(const char *name)
{
    for (int k = 0; k < BUILT; k++)
        if (strcmp(built[k].name, name) == 0) return can_run(name) ? built[k].table : NULL;
    return NULL;
}
