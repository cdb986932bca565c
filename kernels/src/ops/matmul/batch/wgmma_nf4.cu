// Products of 1 to 64 rows with NF4 weights, on sm_90 (sm_90a).
#include "batch_wgmma.cuh"

#if LICHEN_ARCH == 90
WGMMA_KERNELS(nf4, NF4, 2, 1)
#endif
