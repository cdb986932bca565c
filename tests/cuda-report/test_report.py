"""The report's own tests: what it must catch, planted. `python3 -m unittest discover -s tests/cuda-report`."""

import pathlib
import tempfile
import unittest

import kernel
import kernels
import maxwell
from toolchain import Module

PTX = """.version 6.3
.target sm_53
.address_size 64
.visible .entry first(
	.param .u64 first_param_0,
	.param .u32 first_param_1
)
.maxntid 256, 1, 1
.minnctapersm 4
{
	ret;
}
.visible .entry second()
.maxntid 1024, 1, 1
{
	ret;
}
"""
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_53'
ptxas info    : Function properties for first
    {stack} bytes stack frame, {spill} bytes spill stores, {spill} bytes spill loads
ptxas info    : Used {registers} registers, 528 bytes smem, 368 bytes cmem[0]
ptxas info    : Compiling entry function 'second' for 'sm_53'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, 320 bytes cmem[0]
"""
# Two nested loops: the inner one streams weights.
SASS = """.text.matvec:
        /*0008*/                   MOV R1, c[0x0][0x20] ;
.L_x_2:
        /*0010*/         {         MOV R24, RZ ;
        /*0018*/              @!P0 BRA `(.L_x_0)         }
.L_x_1:
        /*0028*/                   LDG.E.CI.128 R4, [R4] ;
        /*0030*/                   SHR.U32 R3, R26.reuse, 0x1e ;
        /*0038*/                   LDS.64 R6, [R2] ;
        /*0048*/                   PRMT R2, R5, 0x9180, RZ ;
        /*0050*/                   I2F.F32.S32 R2, R2 ;
        /*0058*/         {         FFMA R24, R2, R3, R24 ;
        /*0068*/               @P2 BRA `(.L_x_1)         }
.L_x_0:
        /*0070*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*0078*/                   BRA `(.L_x_3) ;
.L_x_4:
"""


class Ptx(unittest.TestCase):
    def read(self, ptx=PTX, stack=0, spill=0, registers=39):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "53-a.ptx"
            path.write_text(ptx)
            module = Module("a", 53, path, log=LOG.format(stack=stack, spill=spill, registers=registers))
            found, offences = kernels.from_ptx(module)
        kernels.read_log(module, found)
        return found, offences + [o for k in found.values() for o in k.offences()]

    def test_reads_bounds_and_figures(self):
        found, offences = self.read()
        self.assertEqual(offences, [])
        first, second = found["first"], found["second"]
        self.assertEqual((first.max_threads, first.min_blocks, first.registers, first.shared_bytes), (256, 4, 39, 528))
        self.assertEqual((second.max_threads, second.min_blocks, second.registers), (1024, 1, 32))
        # 65536 / (256 * 4); and half a multiprocessor's registers for one block of a Nano.
        self.assertEqual((first.register_budget(), second.register_budget()), (64, 32))

    def test_catches_spills(self):
        self.assertEqual(self.read(stack=8, spill=8)[1], ["first (sm_53) spills 8 bytes"])

    def test_catches_local_memory(self):
        self.assertEqual(self.read(stack=64)[1], ["first (sm_53) keeps 64 bytes in local memory"])

    def test_catches_registers(self):
        self.assertEqual(self.read(registers=65)[1], ["first (sm_53) takes 65 registers, its launch bounds leave 64"])

    def test_catches_headers(self):
        self.assertEqual(len(self.read(PTX.replace("6.3", "7.0"))[1]), 1)
        self.assertEqual(len(self.read(PTX.replace("sm_53", "sm_90"))[1]), 1)
        self.assertEqual(len(self.read(PTX.replace(".maxntid 1024, 1, 1\n", ""))[1]), 1)


class Sass(unittest.TestCase):
    def test_counts_the_inner_loop(self):
        loop = maxwell.main_loop(*maxwell.functions(SASS)["matvec"])
        self.assertEqual((loop.start, loop.end, len(loop.instructions), loop.wide_loads()), (0x28, 0x68, 7, 1))
        # A load, a shift (2), a shared load, a permutation, a conversion (4), a product, a branch.
        self.assertEqual(loop.unpaired_issue_slots(), 1 + 2 + 1 + 1 + 4 + 1 + 1)
        # The branch issues with the product.
        self.assertEqual(loop.issue_slots(), loop.unpaired_issue_slots() - 1)
        self.assertEqual(loop.shared_pipe_issue_slots(), 8)

    def test_a_kernel_without_a_streaming_loop_has_none(self):
        self.assertIsNone(maxwell.main_loop(*maxwell.functions(SASS.replace(".128", ""))["matvec"]))

    def test_an_unknown_instruction_is_an_error(self):
        loop = maxwell.main_loop(*maxwell.functions(SASS.replace("PRMT", "FROB"))["matvec"])
        self.assertRaises(ValueError, loop.issue_slots)


class OneKernel(unittest.TestCase):
    NAMES = ["attention/cache/prepare", "matmul/decode/decode_nf4", "matmul/decode/decode_q8_0", "matmul/prefill/prepare"]

    def refusal(self, find, *args):
        with self.assertRaises(SystemExit) as refused:
            find(*args)
        return str(refused.exception)

    def test_finds_a_file_or_names_the_nearest(self):
        self.assertEqual(kernel.find_name("matmul/decode/decode_nf4.cu", self.NAMES), "matmul/decode/decode_nf4")
        for wrong in ["decode_nf4", "matmul/decode_nf4", "matmul/decode/decode_nf"]:
            self.assertIn("the nearest: matmul/decode/decode_nf4", self.refusal(kernel.find_name, wrong, self.NAMES))
        both = "attention/cache/prepare, matmul/prefill/prepare"
        self.assertIn(both, self.refusal(kernel.find_name, "prepare", self.NAMES))
        self.assertIn("no file is named", self.refusal(kernel.find_name, "", self.NAMES))

    def test_refuses_another_architecture(self):
        self.assertEqual((kernel.find_arch("53"), kernel.find_arch("sm_90")), (53, 90))
        self.assertIn("no kernels for sm_54: there are 53, 72", self.refusal(kernel.find_arch, "54"))

    def test_describes_a_kernel(self):
        loop = kernel.longest_loop(*maxwell.functions(SASS)["matvec"])
        lines = list(kernel.describe(kernels.Kernel("matvec", "m", 53, 256, 4, registers=39, shared_bytes=528), loop))
        self.assertIn("  registers      39 of 64", lines)
        self.assertIn("  issue slots    10 a turn, 11 without pairs; the shared memory's pipe 8 beside them", lines)
        self.assertEqual(sum(line.startswith("      ") for line in lines), 7)


if __name__ == "__main__":
    unittest.main()
