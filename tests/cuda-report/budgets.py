"""What the matrix-vector kernels of sm_53 may cost: the Nano's one multiprocessor is out of issue slots before it is out of
bandwidth unless their loops are short.
"""

from dataclasses import dataclass

# Four schedulers of 32 lanes at 921.6 MHz: lanes' issue slots a second.
NANO_ISSUE_SLOTS_PER_S = 128 * 0.9216e9
# Bytes a second the board's memory gives at most.
NANO_BYTES_PER_S = 25.6e9


@dataclass
class Budget:
    """The main loop of one kernel."""

    kernel: str
    # Bytes of codes and scales a weight takes.
    bytes_per_weight: float
    # Weights in a lane's 16-byte load.
    weights_per_load: int
    # 16-byte loads of a lane in one turn of the loop: the source's own unrolling.
    loads: int
    issue_slots_per_weight_max: float

    def weights(self):
        return self.weights_per_load * self.loads


BUDGETS = [
    Budget("matmul_decode_q8_0_t1", 34 / 32, 16, 4, 2.3),
    Budget("matmul_decode_nf4_t1", 33 / 64, 32, 4, 3.3),
]

# All modules of one architecture. A board compiles those of its model's formats at its first start, and of training or of
# batches when it trains or serves many: a third at most, and a Nano must do so in seconds.
PTX_BYTES_MAX = {53: 7_000_000, 72: 6_500_000, 80: 13_500_000, 87: 13_500_000, 90: 14_500_000}
