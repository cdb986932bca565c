"""Opens an NF4 folder that Lichen wrote in transformers + bitsandbytes (CPU) and compares logits with `lichen logits`.

    pip install torch transformers bitsandbytes safetensors accelerate
    python check_transformers.py --model model-nf4 --lichen target/release/lichen
    python check_transformers.py --model model-f32 --lichen target/release/lichen --tolerance 1e-3

Works on unquantised folders too. Computes in float32. bitsandbytes 0.50 multiplies in bfloat16 on CPUs with AVX512-BF16
whatever the compute dtype says; that path is switched off on every layer, or it would be measured instead of the files.
Exit code 1 when a logit differs by more than the tolerance, is not finite, or a greedy token differs where the two best
are further apart than twice the tolerance.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "What is the capital of France?",
    "Who are you?",
    "भारत की राजधानी क्या है?",
    "ಕರ್ನಾಟಕದ ರಾಜಧಾನಿ ಯಾವುದು?",
    "A longer question, so that a sliding window passes over it: which of these things is larger, a kilometre or a "
    "mile, and how many metres are in each of the two of them? Answer with the two numbers, in metres, and nothing more.",
]


def load(path):
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", device_map="cpu"
    ).eval()
    n_4bit = 0
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = torch.float32
            module.compute_type_is_set = True
            n_4bit += 1
    # transformers keeps the bf16 tensors of an NF4 folder in bf16 whatever dtype is asked for; widening them is exact.
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()
    return model, n_4bit


def lichen_logits(program, model, tokens):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.safetensors"
        command = [program, "logits", "--model", model, "--tokens", ",".join(map(str, tokens)), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{program}: exit code {done.returncode}: {done.stderr.strip()}")
        return load_file(out)["logits"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--lichen", required=True, help="the lichen program")
    parser.add_argument("--tolerance", type=float, default=1e-2)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model, n_4bit = load(arguments.model)
    print(f"{arguments.model}: {n_4bit} linear layers in 4 bits")

    wrong, worst = 0, 0.0
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([tokens])).logits[0].float()
        ours = lichen_logits(arguments.lichen, arguments.model, tokens)
        difference = (ours - theirs).abs().max().item()
        top = theirs.topk(2, dim=-1).values
        clear = (top[:, 0] - top[:, 1]) > 2 * arguments.tolerance
        flipped = int((ours.argmax(-1) != theirs.argmax(-1))[clear].sum())
        # Not `difference > tolerance`: NaN must fail.
        bad = not difference <= arguments.tolerance or flipped > 0
        wrong += bad
        worst = max(worst, difference)
        print(f"{'DIFFERENT' if bad else 'equal':9} {len(tokens):4} tokens, largest difference {difference:.2e}, "
              f"{flipped} clear choices differ, logits up to {theirs.abs().max():.1f}: {prompt[:40]!r}")
    print(f"largest difference {worst:.2e}, tolerance {arguments.tolerance:.0e}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
