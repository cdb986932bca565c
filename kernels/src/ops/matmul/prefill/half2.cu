// Prefill products for sm_53.
#include "common.cuh"

#if LICHEN_ARCH == 53
#include "half2.cuh"

#define HALF2_KERNEL(name, format)                                                                                             \
    KERNEL(64, 4, name, PREFILL_PARAMS) {                                                                                      \
        SHARED(HalfTile<format>::Memory, memory, 1);                                                                           \
        PrefillArgs args = PREFILL_ARGS;                                                                                       \
        HalfTile<format>(args, memory[0]).run();                                                                               \
    }

HALF2_KERNEL(matmul_half2_q8_0, Q8_0)
HALF2_KERNEL(matmul_half2_q4_0, Q4_0)
HALF2_KERNEL(matmul_half2_nf4, NF4)
HALF2_KERNEL(matmul_half2_f16, F16)
HALF2_KERNEL(matmul_half2_bf16, BF16)
#endif
