// The variables that both halves share.
#include "runtime.h"

extern "C" {
__thread emulator::Thread* lichen_emulator_thread;
emulator::Calls lichen_emulator_calls;
const emulator::Kernel* lichen_emulator_kernels;

// Thread-local variables of C are out of the reach of stable Rust.
__attribute__((visibility("hidden"))) emulator::Thread** lichen_emulator_thread_slot() { return &lichen_emulator_thread; }
}
