// What the compiled kernels and the emulator's Rust half know of each other. Everything here has its twin in src/foreign.rs.
//
// The functions of the Rust half are reached through one table of pointers, so that libcuda.so exports nothing but the
// driver's own symbols. Stands outside the namespace that build.rs wraps around a kernel file.
#pragma once

namespace emulator {

// What the threads of a block share.
struct Block {
    unsigned dim;
    unsigned index[3];
    unsigned grid[3];
    unsigned dynamic_bytes;
    unsigned char* dynamic_shared;
    unsigned char* shared_base;
};

// The first fields of the Rust half's thread.
struct Thread {
    unsigned index;
    unsigned reserved;
    const Block* block;
};

// A warp collective: the lane that arrives last computes every lane's result from the 32 slots.
struct Collective {
    const char* name;
    void (*combine)(void* const* slots);
};

struct Kernel {
    const char* name;
    // Runs one thread.
    void (*invoke)(void* const* params);
    const unsigned* param_bytes;
    const Kernel* next;
    unsigned n_params;
    unsigned arch;
    unsigned max_threads;
    unsigned min_blocks;
};

struct Calls {
    void (*sync_block)(Thread*);
    void (*warp)(Thread*, const Collective*, void* slot);
    unsigned char* (*shared)(Thread*, const void* site, const char* name, unsigned long bytes);
    void (*copy_async)(Thread*, void* shared, const void* global, unsigned valid);
    void (*copy_async_commit)(Thread*);
    void (*copy_async_wait)(Thread*, unsigned pending);
};

}  // namespace emulator

extern "C" {
// The thread that runs here; null outside kernels. One load: a fiber never moves to another thread of the system.
extern __thread emulator::Thread* lichen_emulator_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern emulator::Calls lichen_emulator_calls __attribute__((visibility("hidden")));
// A list; the last one compiled comes first.
extern const emulator::Kernel* lichen_emulator_kernels __attribute__((visibility("hidden")));
}
