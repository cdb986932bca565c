#!/usr/bin/env python3
"""What the kernels of one .cu file take of a device, and the instructions of their innermost loops.

    python3 tests/cuda-report/kernel.py matmul/decode/decode_nf4 [--arch 53]
"""

import argparse
import difflib
import pathlib
import tempfile

import kernels
import maxwell
import toolchain
from toolchain import ARCHS, fail

SUGGESTIONS_MAX = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="", help="the file below kernels/src/ops, without .cu")
    parser.add_argument("--arch", default="53", help=f"one of {', '.join(map(str, ARCHS))}")
    args = parser.parse_args()
    name, arch = find_name(args.name, toolchain.names()), find_arch(args.arch)
    tools = toolchain.Tools()
    with tempfile.TemporaryDirectory() as scratch:
        module = toolchain.compile_one(tools, name, arch, pathlib.Path(scratch))
        if ".entry" not in module.ptx.read_text():
            fail(f"{name}.cu has no kernel for sm_{arch}")
        toolchain.assemble(tools, module, pathlib.Path(scratch))
        found, offences = kernels.from_ptx(module)
        kernels.read_log(module, found)
        functions = maxwell.functions(toolchain.disassemble(tools, module))
    print(f"{name}.cu for sm_{arch}: clang {tools.clang_version}, ptxas {tools.ptxas_version}")
    for kernel in found.values():
        print("\n" + "\n".join(describe(kernel, longest_loop(*functions[kernel.name]))))
        offences += kernel.offences()
    for offence in offences:
        print(f"\n{offence}")


def find_name(name, names):
    """`name`, which is that of a file; else the nearest ones are named."""
    name = name.removesuffix(".cu").strip("/")
    if name in names:
        return name
    last = name.rsplit("/", 1)[-1]
    within = [n for n in names if last and last in n]
    by_file = {n.rsplit("/", 1)[-1]: n for n in names}
    close = [by_file[f] for f in difflib.get_close_matches(last, by_file, SUGGESTIONS_MAX, 0.5)]
    nearest = list(dict.fromkeys(within + close + difflib.get_close_matches(name, names, SUGGESTIONS_MAX, 0)))
    if not name:
        return fail(f"no file is named, as K=matmul/decode/decode_nf4 does; there are {', '.join(names)}")
    return fail(f"there is no {name}.cu below kernels/src/ops; the nearest: {', '.join(nearest[:SUGGESTIONS_MAX])}")


def find_arch(arch):
    arch = arch.removeprefix("sm_")
    known = ", ".join(map(str, ARCHS))
    return int(arch) if arch.isdigit() and int(arch) in ARCHS else fail(f"no kernels for sm_{arch}: there are {known}")


def longest_loop(instructions, labels):
    """The one that streams most weights, else the one with most instructions, or None."""
    loops = maxwell.innermost_loops(instructions, labels)
    return max(loops, key=lambda l: (l.wide_loads(), len(l.instructions)), default=None)


def describe(kernel, loop):
    """Lines of a kernel's figures and of its loop."""
    yield f"{kernel.name}: {kernel.max_threads} threads, {kernel.min_blocks} blocks a multiprocessor"
    yield f"  registers      {kernel.registers} of {kernel.register_budget()}"
    yield f"  shared memory  {kernel.shared_bytes} bytes, and what a launch asks for"
    yield f"  spills         {kernel.spill_bytes} bytes; {kernel.stack_bytes} bytes of arrays in local memory"
    if loop is None:
        yield "  no loop"
        return
    n_loads = sum(1 for instruction in loop.instructions if instruction.startswith("LDG"))
    yield f"  loop           {len(loop.instructions)} instructions, {n_loads} loads of a lane from the device's memory"
    yield f"  issue slots    {issue_slots(kernel.arch, loop)}"
    yield from (f"      {instruction}" for instruction in loop.instructions)


def issue_slots(arch, loop):
    """Of one turn; what instructions cost is known of Maxwell."""
    if arch != 53:
        return f"{len(loop.instructions)} a turn: one an instruction, which a pipe at less than the full rate may hold up"
    return (f"{loop.issue_slots()} a turn, {loop.unpaired_issue_slots()} without pairs; the shared memory's pipe "
            f"{loop.shared_pipe_issue_slots()} beside them")


if __name__ == "__main__":
    main()
