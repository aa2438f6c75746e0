/* dispatch.c: which instruction sets were built, and which of them this machine can run. setup.py defines XENT_BUILT as
 * a list X(name) X(name) ..., the plainest first. */
#include "table.h"

#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

/* Conversions of 16-bit floats, which every processor with AVX2 has had. Not every compiler's __builtin_cpu_supports
 * knows the name. */
static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
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
    /* These ask the processor and the operating system (XGETBV: are the wide registers saved?). */
    __builtin_cpu_init();
    if (strcmp(isa, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
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
