/* results.c: memory of large results, kept when its array is gone and given to the next result of about its size.
 *
 * The system clears each page of fresh memory when it is first touched, which takes as long as most calls that write to
 * it, and malloc gives blocks of more than 32 MiB back as soon as they are free. So up to a bound of bytes is kept here.
 * All but 64 MiB of what is kept can still be taken by the system when it runs short of memory: it is marked with
 * MADV_FREE, which costs 0.3 ms for 1 GiB in huge pages (in small ones 20 ms, and 170 ms at the next use: there it is
 * not done).
 *
 * The four functions of an allocator are those of NumPy's NEP 49: an array remembers them, and calls them for as long as
 * it lives, whatever becomes of the bound. Whoever asks here writes all of what he gets, or it is cleared. */
#ifdef __linux__
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */
#endif
#include "table.h"

#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

enum {
    HUGE_PAGE = 2 << 20, /* of x86-64 and AArch64 */
    HEADER = 64,         /* bytes before the data: a cache line, which keeps malloc's alignment */
    MOST_KEPT = 64,      /* blocks: more large results than a training step lets go */
};

/* Stands HEADER bytes before the data. */
typedef struct {
    size_t room; /* bytes of the data */
    int mapped;  /* by `map`; else from malloc */
    int marked;  /* kept, and the system may take its pages */
} block;

_Static_assert(sizeof(block) <= HEADER, "a block's header has room before its data");

static block *block_of(void *data) { return (block *)((char *)data - HEADER); }

static size_t bound = 0, held = 0; /* bytes: that may be kept, and that are */
static size_t unmarked = 0;        /* of those held */
static int huge_pages = 0, count = 0;
static void *kept[MOST_KEPT]; /* data, the oldest first */

/* ---- the system's memory, and the lock ---- */

static int round_up(size_t *n, size_t unit)
{
    if (*n > SIZE_MAX / 2) return 0;
    *n = (*n + unit - 1) / unit * unit;
    return 1;
}

#ifdef _WIN32

enum { PAGE = 4096 };
static SRWLOCK lock = SRWLOCK_INIT;

static void enter(void) { AcquireSRWLockExclusive(&lock); }

static void leave(void) { ReleaseSRWLockExclusive(&lock); }

static void *map(size_t n)
{
    if (!round_up(&n, PAGE)) return NULL;
    char *base = VirtualAlloc(NULL, PAGE + n, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!base) return NULL;
    *block_of(base + PAGE) = (block){.room = n, .mapped = 1};
    return base + PAGE;
}

static void unmap(void *data) { VirtualFree((char *)data - PAGE, 0, MEM_RELEASE); }

static void mark_free(void *data) { (void)data; }

int xent_start_results(void) { return 0; }

#else

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void enter(void) { pthread_mutex_lock(&lock); }

static void leave(void) { pthread_mutex_unlock(&lock); }

static int wants_huge_pages(void) { return __atomic_load_n(&huge_pages, __ATOMIC_RELAXED); }

static size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* Data at the start of a huge page, and a page before it for the header. */
static void *map(size_t n)
{
    size_t page = page_size(), first, last;
    if (!round_up(&n, page)) return NULL;
    size_t total = page + n + HUGE_PAGE;
    char *base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    char *data = (char *)(((size_t)base + page + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    first = (size_t)(data - page - base), last = total - first - page - n;
    if (first) munmap(base, first);
    if (last) munmap(data + n, last);
#ifdef MADV_HUGEPAGE
    if (wants_huge_pages()) madvise(data, n, MADV_HUGEPAGE);
#endif
    *block_of(data) = (block){.room = n, .mapped = 1};
    return data;
}

static void unmap(void *data)
{
    size_t page = page_size();
    munmap((char *)data - page, page + block_of(data)->room);
}

/* Let the system take these pages when it needs some; else they stay as they are. */
static void mark_free(void *data)
{
#ifdef MADV_FREE
    if (wants_huge_pages()) madvise(data, block_of(data)->room, MADV_FREE);
#else
    (void)data;
#endif
}

/* In a child of fork(), to write to what is kept would copy the parent's pages. */
static void in_child(void)
{
    while (count) unmap(kept[--count]);
    held = unmarked = 0;
    leave();
}

int xent_start_results(void) { return pthread_atfork(enter, leave, in_child); }

#endif

/* ---- what is kept ---- */

/* Under the lock: a block is kept, or no longer. */
static void count_in(const block *b)
{
    held += b->room;
    if (!b->marked) unmarked += b->room;
}

static void count_out(const block *b)
{
    held -= b->room;
    if (!b->marked) unmarked -= b->room;
}

/* Under the lock: mark the oldest until a block can be kept unmarked beside the others. */
static void mark_for(const block *b)
{
    for (int k = 0; k < count && !b->marked && unmarked + b->room > XENT_MOST_UNMARKED; k++) {
        block *old = block_of(kept[k]);
        if (old->marked) continue;
        mark_free(kept[k]);
        old->marked = 1;
        unmarked -= old->room;
    }
}

/* Under the lock: forget the oldest until no more than `most` bytes in `blocks` blocks are kept. Returns how many. */
static int forget(size_t most, int blocks, void **gone)
{
    int n = 0;
    while (n < count && (held > most || count - n > blocks)) {
        gone[n] = kept[n];
        count_out(block_of(kept[n++]));
    }
    count -= n;
    memmove(kept, kept + n, sizeof(*kept) * (size_t)count);
    return n;
}

static void unmap_all(void **gone, int n)
{
    for (int k = 0; k < n; k++) unmap(gone[k]);
}

/* Whether a block is large enough, and wastes no more than a quarter. */
static int suits(size_t room, size_t n) { return room >= n && room - n <= n / 4; }

/* The smallest kept block that suits, the youngest of equal ones, whose end may still lie in a cache; or NULL. */
static void *take(size_t n)
{
    void *data = NULL;
    int at = -1;
    enter();
    for (int k = count - 1; k >= 0; k--)
        if (suits(block_of(kept[k])->room, n) && (at < 0 || block_of(kept[k])->room < block_of(kept[at])->room)) at = k;
    if (at >= 0) {
        data = kept[at];
        count_out(block_of(data));
        memmove(kept + at, kept + at + 1, sizeof(*kept) * (size_t)(--count - at));
    }
    leave();
    return data;
}

static void keep(void *data)
{
    void *gone[MOST_KEPT];
    block *b = block_of(data);
    int n = 0;
    b->marked = b->room > XENT_MOST_UNMARKED;
    if (b->marked && b->room <= xent_results_bound()) mark_free(data); /* before another thread can take it */
    enter();
    int fits = b->room <= bound;
    if (fits) {
        n = forget(bound - b->room, MOST_KEPT - 1, gone);
        mark_for(b);
        count_in(b);
        kept[count++] = data;
    }
    leave();
    unmap_all(gone, n);
    if (!fits) unmap(data);
}

void xent_bound_results(size_t most, int huge)
{
    void *gone[MOST_KEPT];
    enter();
    __atomic_store_n(&bound, most, __ATOMIC_RELAXED); /* these two are read without the lock */
    __atomic_store_n(&huge_pages, huge, __ATOMIC_RELAXED);
    int n = forget(most, MOST_KEPT, gone);
    leave();
    unmap_all(gone, n);
}

int xent_drop_results(void)
{
    void *gone[MOST_KEPT];
    enter();
    int n = forget(0, 0, gone);
    leave();
    unmap_all(gone, n);
    return n;
}

size_t xent_results_bound(void) { return __atomic_load_n(&bound, __ATOMIC_RELAXED); }

size_t xent_results_held(void)
{
    enter();
    size_t bytes = held;
    leave();
    return bytes;
}

/* ---- scratch, whose memory is Python's (bridge/results.pxi) ---- */

void *xent_spare(xent_scratch kind, void *memory)
{
    static void *spare[XENT_SCRATCHES];
    return __atomic_exchange_n(&spare[kind], memory, __ATOMIC_ACQ_REL);
}

/* ---- NumPy's allocator ---- */

/* Memory of a few bytes, as after `resize`, or for an array that Python makes while one of ours is made. */
static void *small(size_t n)
{
    char *base = n > SIZE_MAX - HEADER ? NULL : malloc(HEADER + n);
    if (!base) return NULL;
    *(block *)base = (block){.room = n, .mapped = 0};
    return base + HEADER;
}

static void *fresh(size_t n) { return n < XENT_LARGE_RESULT ? small(n) : map(n); }

void *xent_result_malloc(void *context, size_t n)
{
    (void)context;
    void *data = n < XENT_LARGE_RESULT ? NULL : take(n);
    if (!data) data = fresh(n);
    if (!data && xent_drop_results()) data = fresh(n);
    return data;
}

void *xent_result_calloc(void *context, size_t items, size_t size)
{
    if (size && items > SIZE_MAX / size) return NULL;
    void *data = xent_result_malloc(context, items * size);
    return data ? memset(data, 0, items * size) : NULL;
}

void *xent_result_realloc(void *context, void *data, size_t n)
{
    size_t room = data ? block_of(data)->room : 0;
    if (data && suits(room, n)) return data;
    void *moved = xent_result_malloc(context, n);
    if (!moved || !data) return moved;
    memcpy(moved, data, room < n ? room : n);
    xent_result_free(context, data, room);
    return moved;
}

/* NumPy's idea of the size, which need not be that of the block, is not asked for. */
void xent_result_free(void *context, void *data, size_t n)
{
    (void)context, (void)n;
    if (!data) return;
    if (block_of(data)->mapped)
        keep(data);
    else
        free(block_of(data));
}
