/* threads.c: the parallel loop, and how many threads it can have. xent/_threads.py decides how many a call may use.
 *
 * Design. OpenMP keeps the threads of a region for the next one of the same caller: its team. Around that, four things
 * are done here, none of which can change a result:
 *
 * Size.   GNU's OpenMP ends the threads that a smaller region does not need, and creates them again for the next larger
 *         one, which takes longer than most calls. So a region is as large as the call may use, however few threads it
 *         needs (the others leave at once), or there is none.
 * Room.   Where the system refuses to create a thread, OpenMP ends the process. So as many threads as a region would
 *         create are created before it, for a trial.
 * Share.  Calls at once, from several threads of Python, have a team each. Each works with its share of the threads
 *         alone, and looks up before each chunk how large that is.
 * Awake.  Idle threads look for work for some microseconds before they sleep. A call that follows another one faster
 *         than that finds them awake, and they help where it would not pay to wake them.
 *
 * In the child of a fork() the parent's OpenMP threads do not exist, and libgomp would wait for them for ever: a child
 * remembers that it is one and computes on one thread. */
#include "base.h"
#include "table.h"

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#ifdef _WIN32
#include <string.h>
#define strcasecmp _stricmp
#define sched_yield() ((void)0)
#else
#include <pthread.h>
#include <sched.h>
#include <strings.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#endif

enum {
    SPIN_COUNT = 1000, /* turns for which idle threads wait before they sleep, as xent/_openmp.py has it */
    /* which takes 15 to 20 microseconds where a turn is the shortest that was seen. Half of it: */
    AWAKE_NS = 8000,
    /* Calls on one thread, each this close to the one before, after which threads are woken for the next one: to wake
     * them takes as long as one or two such calls. */
    CALLS_BEFORE_WAKING = 16,
    REFUSED_NS = 1000000000, /* for a second, no more threads are tried than could be created */
    TRIAL_TURNS = 1000,      /* most turns of waiting for a thread of a trial to be gone; one or two are usual */
    WAITING_TURNS = 10000,   /* of a thread that waits for others, some 10 us or more, before they have its processor */
};

#ifdef _WIN32
enum { forked = 0 }; /* there is no fork() */
#else
static int forked = 0;
#endif
static int processors = 1;
static int spins = 0;   /* idle threads wait for SPIN_COUNT turns and more, if there are no more than processors */
static int running = 0; /* calls that share the threads at this moment */

/* What a caller knows of its team. */
static _Thread_local struct {
    int size;              /* threads of the last region, the caller included */
    int64_t refused_until; /* and till then there cannot be more */
    int64_t last_end;      /* of the last region, or of a call that asked whether the team is awake, */
    int was_region, asked; /* which of the two it was; whether the call that runs now has asked */
    int close_calls;       /* since the last region: calls that asked and followed closely on the one before */
} team = {.size = 1};

/* ---- how many there can be ---- */

/* Some 20 nanoseconds. */
static int64_t now(void)
{
    struct timespec t;
#ifdef _WIN32
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Without a number that a user has set. OMP_NUM_THREADS, the processor affinity and threadpoolctl are all honoured. */
int xent_offered_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* Whatever a user has set: 1 in a forked child and in somebody else's parallel region, OMP_THREAD_LIMIT, and what the
 * system let this caller have a moment ago. */
int xent_thread_limit(void)
{
#ifdef _OPENMP
    if (forked || omp_in_parallel()) return 1;
    if (team.refused_until && now() < team.refused_until) return team.size;
    return omp_get_thread_limit();
#else
    return 1;
#endif
}

/* ---- the parallel loop ---- */

/* A call on several threads. */
typedef struct {
    xent_kernel kernel;
    const void *args;
    ptrdiff_t chunks;
    char *scratch;
    ptrdiff_t scratch_size; /* bytes of each thread */
    int threads, workers;   /* that the call may use; so many of them have a scratch */
    xent_kernel first;      /* what is to be done before, by the same threads, or NULL */
    ptrdiff_t first_chunks;
    /* The first chunk that nobody has taken: written all the time, so it shares its line of the cache with nothing. */
    _Alignas(2 * CACHE_LINE) ptrdiff_t next;
    _Alignas(2 * CACHE_LINE) ptrdiff_t done; /* chunks of `first` */
} job;

/* Threads of a call, so that all calls of this moment together have as many as one may use. */
static int share(int threads)
{
    const int calls = __atomic_load_n(&running, __ATOMIC_RELAXED);
    return calls <= 1 ? threads : threads <= calls ? 1 : threads / calls;
}

/* Wait until all chunks of `first` are done, which others work on: less than one of them takes, unless a thread of them
 * has to wait for a processor. */
static void wait_for_first(const job *j)
{
    for (int turn = 0; __atomic_load_n(&j->done, __ATOMIC_ACQUIRE) < j->first_chunks;) {
        if (turn < WAITING_TURNS)
            turn++;
        else
            sched_yield();
    }
}

/* What thread number `me` does of it: the first one goes on until no chunk is left. */
static void work(job *j, int me)
{
    while (me == 0 || (me < j->workers && me < share(j->threads))) {
        const ptrdiff_t i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED) - j->first_chunks;
        if (i >= j->chunks) return;
        if (i < 0) {
            j->first(j->args, i + j->first_chunks, NULL);
            __atomic_fetch_add(&j->done, 1, __ATOMIC_RELEASE);
        } else {
            if (j->first_chunks) wait_for_first(j);
            j->kernel(j->args, i, j->scratch + me * j->scratch_size);
        }
    }
}

#if defined(_OPENMP) && !defined(_WIN32)
/* One caller at a time creates threads, from its trial until they are there. */
static pthread_mutex_t creating = PTHREAD_MUTEX_INITIALIZER;

/* A thread of a trial, which waits until all are there. */
typedef struct {
    pthread_t thread;
    pthread_mutex_t *gate;
    long id;
} trial;

static void *try_out(void *of)
{
    trial *t = of;
#ifdef __linux__
    t->id = syscall(SYS_gettid);
#endif
    pthread_mutex_lock(t->gate);
    pthread_mutex_unlock(t->gate);
    return NULL;
}

/* A joined thread still counts against limits until the system has forgotten its number. */
static void wait_until_gone(const trial *t)
{
#ifdef __linux__
    for (int turn = 0; turn < TRIAL_TURNS && syscall(SYS_tgkill, getpid(), t->id, 0) == 0; turn++) sched_yield();
#endif
}

/* How many of so many threads the system creates, all at a time. */
static int creatable(int threads)
{
    int created = 0;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    trial *trials = malloc((size_t)threads * sizeof *trials);
    if (trials == NULL) return 0;
    pthread_mutex_lock(&gate);
    while (created < threads) {
        trial *t = trials + created;
        t->gate = &gate;
        if (pthread_create(&t->thread, NULL, try_out, t) != 0) break;
        created++;
    }
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < created; i++) pthread_join(trials[i].thread, NULL);
    for (int i = 0; i < created; i++) wait_until_gone(trials + i);
    free(trials);
    return created;
}

/* The size of a region for a call that may use so many threads: fewer where they cannot be created. If some will be,
 * `locked` says that the caller holds `creating`. */
static int region_size(int threads, int *locked)
{
    const int there = team.size;
    if (threads <= there) return threads;
    if (team.refused_until && now() < team.refused_until) return there;
    pthread_mutex_lock(&creating);
    *locked = 1;
    team.size = there + creatable(threads - there);
    team.refused_until = team.size < threads ? now() + REFUSED_NS : 0;
    return team.size;
}

static void let_others_create(int *locked)
{
    if (*locked) pthread_mutex_unlock(&creating);
    *locked = 0;
}
#elif defined(_OPENMP)
static int region_size(int threads, int *locked) { return (void)locked, threads; }
static void let_others_create(int *locked) { (void)locked; }
#endif

#ifdef _OPENMP
static void work_with_others(job *j)
{
    int size = 1, locked = 0;
    __atomic_fetch_add(&running, 1, __ATOMIC_RELAXED);
    if (share(j->threads) > 1) size = region_size(j->threads, &locked);
    if (size == 1) let_others_create(&locked);
    if (size > 1) {
#pragma omp parallel num_threads(size)
        {
            const int me = omp_get_thread_num();
            if (me == 0) let_others_create(&locked); /* all have been */
            work(j, me);
        }
        team.size = size;
        team.was_region = size <= processors;
        team.close_calls = 0;
        if (spins) team.last_end = now();
    } else {
        work(j, 0);
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_RELAXED);
}
#endif

/* Whether a call that is about to run, and is worth a thread that is awake, finds its team awake, or should wake it
 * because such calls follow each other closely. More threads than processors go to sleep at once. */
int xent_is_team_awake(void)
{
    if (!spins) return 0;
    const int close = now() - team.last_end < AWAKE_NS;
    team.asked = 1;
    team.close_calls = close ? team.close_calls + 1 : 0;
    return close && (team.was_region || (team.size <= processors && team.close_calls > CALLS_BEFORE_WAKING));
}

/* Work all chunks of a call that may use so many threads. Nothing depends on which of them takes which. `workers` of them,
 * the caller the first, have scratch_size bytes of scratch each. Before, the same threads work `first`, without
 * scratch: two regions would wake them twice. */
void xent_run(xent_kernel kernel, const void *args, ptrdiff_t chunks, int threads, int workers, void *scratch,
              ptrdiff_t scratch_size, xent_kernel first, ptrdiff_t first_chunks)
{
    job j = {.kernel = kernel,
             .args = args,
             .chunks = chunks,
             .scratch = scratch,
             .scratch_size = scratch_size,
             .threads = threads,
             .workers = workers,
             .first = first,
             .first_chunks = first_chunks};
    const int asked = team.asked;
#ifdef _OPENMP
    if (workers > 1) {
        work_with_others(&j);
        team.asked = 0;
        return;
    }
#endif
    work(&j, 0);
    if (asked) {
        team.last_end = now();
        team.asked = team.was_region = 0;
    }
}

/* ---- at import ---- */

/* Whether idle threads wait before they sleep for as long as AWAKE_NS says, or longer. */
static int read_spins(void)
{
    const char *count = getenv("GOMP_SPINCOUNT"), *policy = getenv("OMP_WAIT_POLICY");
    return count ? strtod(count, NULL) >= SPIN_COUNT : policy == NULL || strcasecmp(policy, "passive") != 0;
}

#ifndef _WIN32
static void in_child(void) { forked = 1; }
#endif

/* Anything but 0: no memory for it. */
int xent_start_threads(void)
{
    spins = read_spins();
#ifdef _OPENMP
    processors = omp_get_num_procs();
#endif
#ifdef _WIN32
    return 0;
#else
    return pthread_atfork(NULL, NULL, in_child);
#endif
}
