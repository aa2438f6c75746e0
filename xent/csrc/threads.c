/* threads.c: how many threads OpenMP offers at this moment. xent/_threads.py decides how many of them a call uses.
 *
 * In the child of a fork() the parent's OpenMP threads do not exist, and libgomp would wait for them for ever: a child
 * remembers that it is one and computes on one thread. */
#include "table.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static int forked = 0;

/* Asked on every call: OMP_NUM_THREADS, the processor affinity and threadpoolctl are all honoured by it. */
int xent_max_threads(void)
{
#ifdef _OPENMP
    return forked ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

int xent_forked(void) { return forked; }

#ifdef _WIN32
int xent_watch_forks(void) { return 0; }
#else
#include <pthread.h>

static void in_child(void) { forked = 1; }

int xent_watch_forks(void) { return pthread_atfork(NULL, NULL, in_child); }
#endif
