/* kernels.h: every kernel for one stored type, which is XENT_STORED (begin.h). */
#include "begin.h"

#include "simd/exp.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "position.h"

#include "tile.h"

#include "transform.h"

#include "cut.h"

#include "softmax.h"

#include "cross_entropy.h"

#include "evaluate.h"

#include "elements/maps.h"

#include "elements/sigmoid.h"

#include "points.h"

#include "elements.h"

#include "position_losses.h"

#include "label_losses.h"

#include "distillation.h"

#include "images/conv.h"
#include "images/conv_backward.h"
#include "images/im2col.h"
#include "images/pool.h"
#include "images/pool_backward.h"

#include "end.h"
