"""Issue slots of a loop on a Maxwell multiprocessor (sm_53), from its disassembly.

An issue slot is one warp's issue of a full-rate instruction: four schedulers give four a clock. An instruction that its pipe
takes at half the rate costs two issue slots, at a quarter four. Rates of sm_5x: CUDA C Programming Guide, "Throughput of
Native Arithmetic Instructions" (shifts, bit fields, compare, minimum: 64 of 128 lanes a clock; conversions, reciprocals: 32),
and per opcode maxas (NervanaSystems/maxas, MaxAsGrammar.pm: x32 full; shift, cmp half; qtr quarter). Memory
instructions cost the issue slot they are issued in; what they hold up is the memory's time, except for shared memory, whose
own pipe (32 lanes a clock, a quarter rate) is counted beside. The compiler pairs some instructions (braces in the
disassembly): the second of a pair issues in the first one's issue slot.
"""

import re
from dataclasses import dataclass, field

FULL = """FADD FADD32I FMUL FMUL32I FFMA FFMA32I FSWZADD FCHK HADD2 HADD2_32I HMUL2 HMUL2_32I HFMA2 HFMA2_32I
    IADD IADD3 IADD32I XMAD LOP LOP3 LOP32I MOV MOV32I PRMT SEL P2R CSET CSETP S2R NOP DEPBAR
    BRA SSY SYNC PBK BRK PCNT CONT EXIT RET CAL JCAL BAR MEMBAR WARPSYNC
    LD LDG LDS LDC LDL ST STG STS STL ATOM ATOMS RED SHFL""".split()
HALF = """SHL SHR SHF BFE BFI ISCADD ISCADD32I LEA FMNMX IMNMX FSET ISET FCMP ICMP FSETP ISETP PSET PSETP HSET2
    HSETP2 R2P VOTE RRO ISAD VADD VMNMX VABSDIFF VSET VSHL VSHR""".split()
QUARTER = "MUFU I2F F2F F2I I2I FLO POPC".split()
ISSUE_SLOTS = {**dict.fromkeys(FULL, 1), **dict.fromkeys(HALF, 2), **dict.fromkeys(QUARTER, 4)}


@dataclass
class Loop:
    """The instructions between a label and the last branch back to it."""

    start: int
    end: int
    instructions: list = field(default_factory=list)
    # Instructions that issue together with the one before.
    n_pairs: int = 0

    def wide_loads(self):
        """16-byte loads of what no one writes: a lane's weights. Volta and later call them LDG.E.128.CONSTANT."""
        return sum(1 for i in self.instructions if re.match(r"LDG\b(?=\S*\.128\b)\S*\.(CI|CONSTANT)\b", i))

    def unpaired_issue_slots(self):
        """Issue slots if nothing issued in pairs."""
        return sum(ISSUE_SLOTS[opcode(i)] for i in self.instructions)

    def issue_slots(self):
        return self.unpaired_issue_slots() - self.n_pairs

    def shared_pipe_issue_slots(self):
        """Issue slots that go by while the shared memory's pipe serves the loop, without bank conflicts or broadcasts."""
        slots = 0
        for instruction in self.instructions:
            if opcode(instruction) in ("LDS", "STS", "ATOMS", "SHFL"):
                words = 4 if ".128" in instruction else 2 if ".64" in instruction else 1
                slots += 4 * words
        return slots


def opcode(instruction):
    name = instruction.split()[0].split(".")[0]
    if name not in ISSUE_SLOTS:
        raise ValueError(f"maxwell.py has no rate for {instruction}")
    return name


def functions(sass):
    """{kernel: (instructions by address, addresses of labels)} of nvdisasm's text. A second of a pair ends in `}`."""
    found = {}
    instructions, labels, pending = {}, {}, []
    for line in sass.splitlines():
        if head := re.match(r"\.text\.(\w+):", line):
            instructions, labels, pending = {}, {}, []
            found[head.group(1)] = (instructions, labels)
        elif label := re.match(r"(\.L_\w+):", line):
            pending.append(label.group(1))
        elif code := re.match(r"\s+/\*([0-9a-f]+)\*/\s+\{?\s*(.*?)\s*([;}])", line):
            address = int(code.group(1), 16)
            instructions[address] = code.group(2) + ("}" if code.group(3) == "}" else "")
            labels.update(dict.fromkeys(pending, address))
            pending = []
    return found


def without_predicate(instruction):
    return re.sub(r"^@!?P\w\s+", "", instruction).rstrip("}")


def innermost_loops(instructions, labels):
    """Loops that hold no other loop."""
    ends = {}
    for address, instruction in instructions.items():
        target = re.match(r"BRA\b.*\((\.L_\w+)\)", without_predicate(instruction))
        start = labels.get(target.group(1)) if target else None
        # An endless branch to itself pads a function's end.
        if start is not None and start < address:
            ends[start] = max(ends.get(start, 0), address)
    loops = [Loop(start, end) for start, end in ends.items()]
    inner = [l for l in loops if not any(o is not l and l.start <= o.start and o.end <= l.end for o in loops)]
    for loop in inner:
        inside = [i for a, i in instructions.items() if loop.start <= a <= loop.end]
        loop.instructions = [without_predicate(i) for i in inside]
        loop.n_pairs = sum(1 for i in inside if i.endswith("}"))
    return inner


def main_loop(instructions, labels):
    """The innermost loop that streams most weights, or None."""
    streaming = [l for l in innermost_loops(instructions, labels) if l.wide_loads()]
    return max(streaming, key=lambda l: l.wide_loads(), default=None)
