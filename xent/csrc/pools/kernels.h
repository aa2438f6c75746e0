/* kernels.h: the kernels of this folder for one stored type, which is XENT_STORED (begin.h). */
#include "begin.h"

#include "pools/pool.h"
#include "pools/pool_backward.h"

#include "end.h"
