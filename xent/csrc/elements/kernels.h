/* kernels.h: the kernels of this folder for one stored type, which is XENT_STORED (begin.h). */
#include "begin.h"

#include "elements/elements.h"
#include "elements/maps.h"
#include "elements/sigmoid.h"

#include "end.h"
