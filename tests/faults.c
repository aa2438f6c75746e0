/* faults.c: allocations that fail on purpose, those of one shared library alone.
 *
 * The calls of a library go through its table of addresses (GOT), where those of the functions below are put in place of
 * the allocators'. So neither Python nor any other library is disturbed. Arrays come through a handler of NumPy's
 * (NEP 49), `faults_handler`, which counts and fails with the others. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
enum { JUMP_SLOT = R_X86_64_JUMP_SLOT, GLOB_DAT = R_X86_64_GLOB_DAT };
#elif defined(__aarch64__)
enum { JUMP_SLOT = R_AARCH64_JUMP_SLOT, GLOB_DAT = R_AARCH64_GLOB_DAT };
#else
#error "relocations of this machine are not known"
#endif

static long countdown = 0; /* the allocation after so many fails; 0: none does */
static int all_after = 0;  /* and so do all that follow */
static long fired = 0, alive = 0;

static int fails(void)
{
    long left = __atomic_load_n(&countdown, __ATOMIC_RELAXED);
    if (left == 0) return 0;
    if (left > 1) {
        __atomic_fetch_sub(&countdown, 1, __ATOMIC_RELAXED);
        return 0;
    }
    if (!all_after) __atomic_store_n(&countdown, 0, __ATOMIC_RELAXED);
    fired++;
    errno = ENOMEM;
    return 1;
}

static void *counted(void *memory)
{
    if (memory) __atomic_fetch_add(&alive, 1, __ATOMIC_RELAXED);
    return memory;
}

static void *(*py_malloc)(size_t), *(*py_calloc)(size_t, size_t), *(*py_realloc)(void *, size_t);
static void (*py_free)(void *);

static void gone(void *memory)
{
    if (memory) __atomic_fetch_sub(&alive, 1, __ATOMIC_RELAXED);
}

static void *a_malloc(size_t n) { return fails() ? NULL : counted(malloc(n)); }
static void *a_calloc(size_t n, size_t size) { return fails() ? NULL : counted(calloc(n, size)); }
static void a_free(void *memory) { gone(memory), free(memory); }
static void *a_py_malloc(size_t n) { return fails() ? NULL : counted(py_malloc(n)); }
static void *a_py_calloc(size_t n, size_t size) { return fails() ? NULL : counted(py_calloc(n, size)); }
static void a_py_free(void *memory) { gone(memory), py_free(memory); }

static void *a_py_realloc(void *memory, size_t n)
{
    if (fails()) return NULL;
    void *moved = py_realloc(memory, n);
    return memory ? moved : counted(moved);
}

static void *a_mmap(void *at, size_t n, int rights, int flags, int file, off_t offset)
{
    return fails() ? MAP_FAILED : mmap(at, n, rights, flags, file, offset);
}

static int a_pthread_create(pthread_t *thread, const pthread_attr_t *with, void *(*run)(void *), void *of)
{
    return fails() ? EAGAIN : pthread_create(thread, with, run, of);
}

static struct {
    const char *name;
    void *ours, *theirs;
} replaced[] = {
    {"malloc", a_malloc, malloc},
    {"calloc", a_calloc, calloc},
    {"free", a_free, free},
    {"mmap", a_mmap, mmap},
    {"PyMem_Malloc", a_py_malloc, NULL},
    {"PyMem_Calloc", a_py_calloc, NULL},
    {"PyMem_Free", a_py_free, NULL},
    {"PyMem_Realloc", a_py_realloc, NULL},
    {"pthread_create", a_pthread_create, pthread_create},
};

enum { REPLACED = sizeof(replaced) / sizeof(*replaced) };

/* ---- the table of a library ---- */

typedef struct {
    const char *name; /* a part of the library's */
    int ours, found;
} search;

static int put(ElfW(Addr) * slot, void *address)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (mprotect((void *)((size_t)slot / page * page), page, PROT_READ | PROT_WRITE)) return 0;
    *slot = (ElfW(Addr))address;
    return 1;
}

static int put_all(const ElfW(Rela) * first, size_t bytes, const ElfW(Sym) * symbols, const char *strings,
                   ElfW(Addr) base, int ours)
{
    int found = 0;
    for (const ElfW(Rela) *r = first; r < first + bytes / sizeof(*r); r++) {
        unsigned kind = (unsigned)ELF64_R_TYPE(r->r_info);
        if (kind != JUMP_SLOT && kind != GLOB_DAT) continue;
        const char *name = strings + symbols[ELF64_R_SYM(r->r_info)].st_name;
        for (int k = 0; k < REPLACED; k++)
            if (strcmp(name, replaced[k].name) == 0)
                found += put((ElfW(Addr) *)(base + r->r_offset), ours ? replaced[k].ours : replaced[k].theirs);
    }
    return found;
}

static int visit(struct dl_phdr_info *library, size_t size, void *of)
{
    search *s = of;
    (void)size;
    if (strstr(library->dlpi_name, s->name) == NULL) return 0;
    const ElfW(Dyn) *entry = NULL;
    for (int k = 0; k < library->dlpi_phnum; k++)
        if (library->dlpi_phdr[k].p_type == PT_DYNAMIC)
            entry = (const ElfW(Dyn) *)(library->dlpi_addr + library->dlpi_phdr[k].p_vaddr);
    const ElfW(Rela) * tables[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_JMPREL) tables[0] = (const void *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_PLTRELSZ) bytes[0] = entry->d_un.d_val;
        if (entry->d_tag == DT_RELA) tables[1] = (const void *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_RELASZ) bytes[1] = entry->d_un.d_val;
        if (entry->d_tag == DT_SYMTAB) symbols = (const void *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_STRTAB) strings = (const void *)entry->d_un.d_ptr;
    }
    for (int k = 0; k < 2; k++)
        if (tables[k]) s->found += put_all(tables[k], bytes[k], symbols, strings, library->dlpi_addr, s->ours);
    return 1;
}

/* Put our functions into the table of the library whose name has this part, or back those that were there. Returns how
 * many of its calls that concerns. */
int faults_install(const char *name, int ours)
{
    for (int k = 0; k < REPLACED; k++)
        if (replaced[k].theirs == NULL) replaced[k].theirs = dlsym(RTLD_DEFAULT, replaced[k].name);
    *(void **)&py_malloc = replaced[4].theirs, *(void **)&py_calloc = replaced[5].theirs;
    *(void **)&py_free = replaced[6].theirs, *(void **)&py_realloc = replaced[7].theirs;
    search s = {.name = name, .ours = ours};
    dl_iterate_phdr(visit, &s);
    return s.found;
}

/* Let allocation number n from now on fail, counted from 1, or none for 0; and with `all` those that follow. */
void faults_arm(long n, int all) { countdown = n, all_after = all, fired = 0; }
long faults_fired(void) { return fired; }
long faults_alive(void) { return __atomic_load_n(&alive, __ATOMIC_RELAXED); }

/* ---- arrays ---- */

static void *array_malloc(void *context, size_t n) { return (void)context, a_malloc(n); }
static void *array_calloc(void *context, size_t n, size_t size) { return (void)context, a_calloc(n, size); }
static void array_free(void *context, void *memory, size_t n) { (void)context, (void)n, a_free(memory); }

static void *array_realloc(void *context, void *memory, size_t n)
{
    (void)context;
    if (fails()) return NULL;
    void *moved = realloc(memory, n);
    return memory ? moved : counted(moved);
}

/* NumPy's PyDataMem_Handler. */
struct {
    char name[127];
    uint8_t version;
    void *context, *(*malloc)(void *, size_t), *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *, size_t);
} faults_handler = {"faults", 1, NULL, array_malloc, array_calloc, array_realloc, array_free};
