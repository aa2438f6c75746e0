/* kernels.h: the kernels of this folder for one stored type, which is XENT_STORED (begin.h). */
#include "begin.h"

#include "softmax/cross_entropy.h"
#include "softmax/distillation.h"
#include "softmax/evaluate.h"
#include "softmax/label_losses.h"
#include "softmax/position_losses.h"
#include "softmax/softmax.h"

#include "end.h"
