// Prefill products for sm_72.
#include "common.cuh"

#if LICHEN_ARCH == 72
#include "wmma.cuh"

#define WMMA_KERNEL(name, format)                                                                                              \
    KERNEL(128, 2, name, PREFILL_PARAMS) {                                                                                     \
        SHARED(u16, memory, 2 * WmmaTile<format>::STAGE);                                                                      \
        PrefillArgs args = PREFILL_ARGS;                                                                                       \
        WmmaTile<format>(args, memory).run();                                                                                  \
    }

WMMA_KERNEL(matmul_wmma_q8_0, Q8_0)
WMMA_KERNEL(matmul_wmma_q4_0, Q4_0)
WMMA_KERNEL(matmul_wmma_nf4, NF4)
WMMA_KERNEL(matmul_wmma_f16, F16)
WMMA_KERNEL(matmul_wmma_bf16, BF16)
#endif
