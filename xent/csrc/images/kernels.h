/* kernels.h: the kernels of this folder for one stored type, which is XENT_STORED (begin.h). */
#include "begin.h"

#include "images/conv.h"
#include "images/conv_backward.h"
#include "images/im2col.h"

#include "end.h"
