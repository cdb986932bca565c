// Products of 1 to 64 rows with Q8_0 weights, on sm_90 (sm_90a).
#include "batch_wgmma.cuh"

#if LICHEN_ARCH == 90
WGMMA_KERNELS(q8_0, Q8_0, 2, 1)
#endif
