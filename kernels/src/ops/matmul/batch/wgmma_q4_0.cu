// Products of 1 to 64 rows with Q4_0 weights, on sm_90 (sm_90a).
#include "batch_wgmma.cuh"

#if LICHEN_ARCH == 90
WGMMA_KERNELS(q4_0, Q4_0, 1, 1)
#endif
