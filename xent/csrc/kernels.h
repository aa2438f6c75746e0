/* kernels.h: every kernel for one stored type, which is XENT_STORED (begin.h). */
#include "begin.h"

#include "elements/elements.h"
#include "elements/maps.h"
#include "elements/sigmoid.h"

#include "images/conv.h"
#include "images/conv_backward.h"
#include "images/im2col.h"
#include "images/pool.h"
#include "images/pool_backward.h"

#include "softmax/cross_entropy.h"
#include "softmax/distillation.h"
#include "softmax/evaluate.h"
#include "softmax/label_losses.h"
#include "softmax/position_losses.h"
#include "softmax/softmax.h"

#include "end.h"
