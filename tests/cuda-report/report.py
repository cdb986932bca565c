#!/usr/bin/env python3
"""The static evidence of the CUDA kernels: registers, shared memory, spills, issue slots per weight, sizes.

Compiles every kernels/src/ops/**/*.cu as kernels/build.rs does, assembles it with ptxas, disassembles the matrix-vector
kernels of sm_53, and writes the table beside this file. With --check nothing is written: it fails on a spill, on a lost
budget, and on a table that is not what these sources give.

    python3 tests/cuda-report/report.py [--check] [--built target/debug] [--keep FOLDER]
"""

import argparse
import difflib
import pathlib
import sys
import tempfile

import budgets
import kernels
import maxwell
import toolchain
from toolchain import ARCHS, fail

TABLE = pathlib.Path(__file__).parent / "kernels.md"
# What follows in the table is this machine's, and is not compared.
TIMES_HEADING = "## Time of ptxas"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed table instead of writing it")
    parser.add_argument("--built", help="a build's folder: fails where the PTX embedded there is another")
    parser.add_argument("--keep", help="a folder for the PTX and the cubins")
    args = parser.parse_args()
    tools = toolchain.Tools()
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(args.keep or scratch)
        out.mkdir(parents=True, exist_ok=True)
        modules = toolchain.compile_all(tools, out)
        table, offences = measure(tools, modules, out)
        offences += toolchain.differences(modules, pathlib.Path(args.built)) if args.built else []
    for offence in offences:
        print(f"cuda-report: {offence}", file=sys.stderr)
    if args.check:
        offences += compare(table)
    else:
        TABLE.write_text(table)
    n_kernels = sum(1 for line in table.splitlines() if line.startswith("| `"))
    print(f"cuda-report: {len(modules)} modules, {n_kernels} rows, {len(offences)} offences")
    sys.exit(1 if offences else 0)


def measure(tools, modules, out):
    """(the table, what breaks a rule)."""
    found, offences = [], []
    for module in modules:
        toolchain.assemble(tools, module, out)
        of_module, complaints = kernels.from_ptx(module)
        kernels.read_log(module, of_module)
        found += of_module.values()
        offences += complaints
    for kernel in found:
        offences += kernel.offences()
    loops, complaints = matvec_loops(tools, modules, found)
    offences += complaints
    for arch in ARCHS:
        size = sum(m.ptx.stat().st_size for m in modules if m.arch == arch)
        if size > budgets.PTX_BYTES_MAX[arch]:
            offences.append(f"sm_{arch}: {size} bytes of PTX, at most {budgets.PTX_BYTES_MAX[arch]}")
    return render(tools, modules, found, loops), offences


def matvec_loops(tools, modules, found):
    """([(budget, loop)], offences) of the kernels that have a budget."""
    loops, offences, texts = [], [], {}
    for budget in budgets.BUDGETS:
        kernel = next((k for k in found if k.name == budget.kernel and k.arch == 53), None)
        if kernel is None:
            offences.append(f"{budget.kernel} has a budget, but no sm_53 kernel has its name")
            continue
        module = next(m for m in modules if m.name == kernel.module and m.arch == 53)
        if module.name not in texts:
            texts[module.name] = maxwell.functions(toolchain.disassemble(tools, module))
        loop = maxwell.main_loop(*texts[module.name][budget.kernel])
        if loop is None:
            offences.append(f"{budget.kernel}: no loop with 16-byte loads")
            continue
        loops.append((budget, loop))
        if loop.wide_loads() != budget.loads:
            offences.append(f"{budget.kernel}: {loop.wide_loads()} 16-byte loads a turn, declared {budget.loads}")
        slots = loop.issue_slots() / budget.weights()
        if not slots <= budget.issue_slots_per_weight_max:
            offences.append(f"{budget.kernel}: {slots:.2f} issue slots per weight, at most {budget.issue_slots_per_weight_max}")
    return loops, offences


def render(tools, modules, found, loops):
    parts = [
        "# The CUDA kernels, assembled",
        "Written by `tests/cuda-report/report.py`, checked by `bash .ci/run cuda_report`. No kernel spills a register or\n"
        "keeps an array in local memory: the check fails if one does.",
        f"clang {tools.clang_version}, ptxas {tools.ptxas_version}, nvdisasm {tools.nvdisasm_version}.",
        render_sizes(modules, found),
        render_loops(loops),
        render_kernels(found),
        render_times(modules),
    ]
    return "\n\n".join(parts) + "\n"


def render_sizes(modules, found):
    lines = ["## Sizes", "", "What a driver compiles when it has compiled nothing yet.", "",
             "| architecture | PTX version | modules | kernels | PTX bytes | cubin bytes |",
             "| --- | --- | --- | --- | --- | --- |"]
    for arch, version in ARCHS.items():
        mine = [m for m in modules if m.arch == arch]
        n_kernels = sum(1 for k in found if k.arch == arch)
        ptx = sum(m.ptx.stat().st_size for m in mine)
        cubin = sum(m.cubin.stat().st_size for m in mine)
        lines.append(f"| sm_{arch} | {version} | {len(mine)} | {n_kernels} | {ptx} | {cubin} |")
    return "\n".join(lines)


LOOPS_HEAD = """## Issue slots per weight on sm_53

The main loop of each matrix-vector kernel, counted in the disassembly: full-rate instructions cost one issue slot, half-rate
two, quarter-rate four, the second of a pair that issues together one less (`maxwell.py` has the table and its sources);
"unpaired" is without that. "shared pipe" is the time of the shared memory in the same unit, at most; it passes beside the
other instructions. The bound is the share of the Nano's 25.6 GB/s that 118 G issue slots a second keep up with: above 100 %
memory is what limits.

| kernel | weights a turn | instructions | issue slots per weight | budget | unpaired | shared pipe | bound |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def render_loops(loops):
    lines = [LOOPS_HEAD]
    for budget, loop in loops:
        n_weights = budget.weights()
        slots, single, shared = loop.issue_slots(), loop.unpaired_issue_slots(), loop.shared_pipe_issue_slots()
        per_weight = max(slots, shared) / n_weights
        bound = budgets.NANO_ISSUE_SLOTS_PER_S / per_weight * budget.bytes_per_weight / budgets.NANO_BYTES_PER_S
        lines.append(f"| `{budget.kernel}` | {n_weights} | {len(loop.instructions)} | {slots / n_weights:.2f} "
                     f"| {budget.issue_slots_per_weight_max} | {single / n_weights:.2f} | {shared / n_weights:.2f} "
                     f"| {100 * bound:.0f} % |")
    return "\n".join(lines)


def render_kernels(found):
    head = "Registers a thread takes, of what the launch bounds leave it; then the bytes of static shared memory."
    lines = ["## Registers and shared memory", "", head, ""]
    columns = "".join(f" sm_{arch} |" for arch in ARCHS)
    for module in sorted({k.module for k in found}):
        lines += [f"### {module}.cu", "", f"| kernel | threads x blocks |{columns}"]
        lines.append("| --- | --- |" + " --- |" * len(ARCHS))
        mine = [k for k in found if k.module == module]
        for name in dict.fromkeys(k.name for k in mine):
            by_arch = {k.arch: k for k in mine if k.name == name}
            bounds = " or ".join(dict.fromkeys(f"{k.max_threads} x {k.min_blocks}" for k in by_arch.values()))
            cells = "".join(f" {cell(by_arch.get(arch))} |" for arch in ARCHS)
            lines.append(f"| `{name}` | {bounds} |{cells}")
        lines.append("")
    return "\n".join(lines).rstrip()


def cell(kernel):
    if kernel is None:
        return "-"
    text = f"{kernel.registers}/{kernel.register_budget()}"
    text += f", {kernel.shared_bytes} B" if kernel.shared_bytes else ""
    text += f", {kernel.spill_bytes} B spilled" if kernel.spill_bytes else ""
    return text + (f", {kernel.stack_bytes} B local" if kernel.stack_bytes else "")


def render_times(modules):
    lines = [TIMES_HEADING, "", "Of one core of the machine that wrote this table; not compared.", "",
             "| architecture | seconds | slowest module |", "| --- | --- | --- |"]
    for arch in ARCHS:
        mine = [m for m in modules if m.arch == arch]
        slowest = max(mine, key=lambda m: m.ptxas_s)
        lines.append(f"| sm_{arch} | {sum(m.ptxas_s for m in mine):.1f} | {slowest.name}, {slowest.ptxas_s:.1f} |")
    return "\n".join(lines)


def compare(table):
    """Nothing, or that the committed table is another one."""
    committed = TABLE.read_text() if TABLE.exists() else fail(f"no {TABLE.name}: run report.py without --check")
    old, new = (text.split(TIMES_HEADING)[0].splitlines() for text in (committed, table))
    old_tools, new_tools = (next(line for line in lines if line.startswith("clang ")) for lines in (old, new))
    if old_tools != new_tools:
        # Another compiler gives other registers; spills and budgets were checked all the same.
        print(f"cuda-report: {TABLE.name} was NOT compared: it was written with {old_tools} This is {new_tools}")
        return []
    if old == new:
        return []
    print("\n".join(difflib.unified_diff(old, new, "committed", "these sources", lineterm="", n=0)))
    return [f"{TABLE.name} is out of date: run `make cuda-report` and commit it"]


if __name__ == "__main__":
    main()
