"""Finds clang, ptxas and nvdisasm, and runs them: .cu to PTX to cubin to SASS.

LICHEN_CLANG, LICHEN_PTXAS and LICHEN_NVDISASM name the programs; without them the search path does.
"""

import concurrent.futures
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Architecture: version of the PTX language, as in kernels/build.rs.
ARCHS = {53: "6.3", 72: "6.3", 80: "7.0", 87: "7.4", 90: "7.8"}


def fail(sentence):
    sys.exit(f"cuda-report: {sentence}")


def find(variable, names, what):
    """The program that `variable` names, or the first of `names` on the search path."""
    named = os.environ.get(variable)
    if named:
        path = shutil.which(named)
        return path or fail(f"{variable}={named} is not a program")
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    return fail(f"no {what}: set {variable} to one (.ci/run downloads it)")


def run(command):
    """Standard output and standard error together; anything but success ends the report."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))} failed:\n{done.stderr}{done.stdout}")
    return done.stdout + done.stderr


class Tools:
    """The three programs and their versions."""

    def __init__(self):
        self.clang = find("LICHEN_CLANG", ["clang-19", "clang++-19", "clang"], "clang")
        self.ptxas = find("LICHEN_PTXAS", ["ptxas"], "ptxas")
        self.nvdisasm = find("LICHEN_NVDISASM", ["nvdisasm"], "nvdisasm")
        # Debian's own revision stands behind the version: it does not change what is generated.
        self.clang_version = self.version(self.clang, r"clang version ([0-9.]+)")
        self.ptxas_version = self.version(self.ptxas, r"release [0-9.]+, V([0-9.]+)")
        self.nvdisasm_version = self.version(self.nvdisasm, r"release [0-9.]+, V([0-9.]+)")

    def version(self, program, pattern):
        found = re.search(pattern, run([program, "--version"]))
        return found.group(1) if found else fail(f"{program} does not say its version")


@dataclass
class Module:
    """One .cu file for one architecture."""

    # Below kernels/src/ops, without the ending: matmul/decode.
    name: str
    arch: int
    ptx: pathlib.Path
    cubin: pathlib.Path = None
    # What ptxas -v said.
    log: str = ""
    ptxas_s: float = 0.0

    def target(self):
        """(target, PTX version), as kernels/build.rs has them: files of instructions that the H100 and H200 alone have are
        named wgmma_*."""
        is_wgmma = self.arch == 90 and self.name.rsplit("/", 1)[-1].startswith("wgmma_")
        return ("sm_90a", "8.0") if is_wgmma else (f"sm_{self.arch}", ARCHS.get(self.arch))


def sources():
    found = sorted((ROOT / "kernels/src/ops").glob("**/*.cu"))
    return found or fail("no .cu file under kernels/src/ops")


def names():
    """Of the sources, below kernels/src/ops and without the ending: matmul/decode/decode_nf4."""
    return [str(source.relative_to(ROOT / "kernels/src/ops").with_suffix("")) for source in sources()]


def compile_one(tools, name, arch, out):
    """With the flags of kernels/build.rs and its names for what comes out."""
    module = Module(name, arch, out / f"{arch}-{name.replace('/', '-')}.ptx")
    target, version = module.target()
    flag = "+ptx" + version.replace(".", "")
    run([tools.clang, "-x", "cuda", "-std=c++17", "--cuda-device-only", "-nocudainc", "-nocudalib",
         f"--cuda-gpu-arch={target}", "-Xclang", "-target-feature", "-Xclang", flag, "-O3", "-ffp-contract=off",
         f"-I{ROOT}/kernels/cuda", f"-DLICHEN_ARCH={arch}", "-S", ROOT / f"kernels/src/ops/{name}.cu", "-o", module.ptx])
    return module


def compile_all(tools, out):
    """Every source for every architecture."""
    jobs = [(name, arch) for name in names() for arch in ARCHS]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        modules = list(pool.map(lambda job: compile_one(tools, *job, out), jobs))
    # A file may have nothing for an architecture.
    return [m for m in modules if ".entry" in m.ptx.read_text()]


def differences(modules, target):
    """What is measured must be what a build in `target` embeds: the PTX of both, compared."""
    tables = sorted(target.glob("build/lichen-kernels-*/out/ptx_table.rs"), key=lambda path: path.stat().st_mtime)
    if not tables:
        return [f"no build of lichen-kernels in {target}"]
    built = tables[-1].parent
    found = []
    for module in modules:
        other = built / module.ptx.name
        if not other.exists() or other.read_bytes() != module.ptx.read_bytes():
            found.append(f"{module.ptx.name} is not what the build embeds ({other})")
    return found


def assemble(tools, module, out):
    """One after the other, so that the processor's time is this module's."""
    module.cubin = out / f"{module.ptx.stem}.cubin"
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    module.log = run([tools.ptxas, "-v", f"-arch={module.target()[0]}", module.ptx, "-o", module.cubin])
    module.ptxas_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began


def disassemble(tools, module):
    return run([tools.nvdisasm, "--print-code", module.cubin])
