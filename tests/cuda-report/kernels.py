"""What PTX and ptxas say of a kernel, and what they are allowed to say."""

import re
from dataclasses import dataclass

from toolchain import ARCHS

# Registers of a multiprocessor, on every architecture here; a warp takes them in units of 256, 8 a thread.
REGISTERS_PER_SM = 65536
REGISTER_UNIT = 8
REGISTERS_PER_THREAD_MAX = 255
# A block's share on a Jetson Nano (deviceQuery on the board says 32768).
REGISTERS_PER_BLOCK_SM53 = 32768


@dataclass
class Kernel:
    """One kernel on one architecture."""

    name: str
    module: str
    arch: int
    max_threads: int
    # Blocks of a multiprocessor that the launch bounds promise room for.
    min_blocks: int
    registers: int = 0
    shared_bytes: int = 0
    spill_bytes: int = 0
    # Local memory: arrays that found no registers.
    stack_bytes: int = 0

    def register_budget(self):
        warps = -(-self.max_threads // 32)
        budget = REGISTERS_PER_SM // (warps * 32 * self.min_blocks)
        if self.arch == 53:
            budget = min(budget, REGISTERS_PER_BLOCK_SM53 // (warps * 32))
        return min(budget // REGISTER_UNIT * REGISTER_UNIT, REGISTERS_PER_THREAD_MAX)

    def offences(self):
        where = f"{self.name} (sm_{self.arch})"
        if self.spill_bytes:
            yield f"{where} spills {self.spill_bytes} bytes"
        if self.stack_bytes:
            yield f"{where} keeps {self.stack_bytes} bytes in local memory"
        if self.registers > self.register_budget():
            yield f"{where} takes {self.registers} registers, its launch bounds leave {self.register_budget()}"


def from_ptx(module):
    """(kernels by name, offences) of a module's PTX: launch bounds, and the header as it is meant to be."""
    text = module.ptx.read_text()
    offences = []
    target, version = module.target()
    for directive, want in [("version", version), ("target", target)]:
        found = re.search(rf"^\.{directive} (\S+)", text, re.M)
        if not found or found.group(1) != want:
            offences.append(f"{module.ptx.name}: .{directive} is {found and found.group(1)}, should be {want}")
    kernels = {}
    # An entry's directives stand between its parameters and its body.
    for entry in re.finditer(r"\.entry\s+(\w+)\s*\([^)]*\)([^{]*)\{", text):
        name, directives = entry.groups()
        threads = re.search(r"\.maxntid\s+(\d+)", directives)
        blocks = re.search(r"\.minnctapersm\s+(\d+)", directives)
        if not threads:
            offences.append(f"{module.ptx.name}: {name} has no launch bounds")
            continue
        min_blocks = int(blocks.group(1)) if blocks else 1
        kernels[name] = Kernel(name, module.name, module.arch, int(threads.group(1)), min_blocks)
    return kernels, offences


def read_log(module, kernels):
    """Fills in what `ptxas -v` said of each kernel."""
    current = None
    for line in module.log.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            current = kernels.get(found.group(1))
        elif current is None:
            continue
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack, stores, loads = map(int, found.groups())
            current.spill_bytes = max(stores, loads)
            current.stack_bytes = stack if not current.spill_bytes else 0
        elif found := re.search(r"Used (\d+) registers", line):
            current.registers = int(found.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            current.shared_bytes = int(shared.group(1)) if shared else 0
            current = None
