"""Opens a GGUF LoRA adapter that Lichen wrote in llama.cpp and compares logits with `lichen logits --adapter`.

    pip install llama-cpp-python safetensors numpy      (builds llama.cpp: a C++ compiler and a few minutes)
    python check_llama_adapter.py --base base-f32.gguf --adapter adapter.gguf --lichen target/release/lichen
    python check_llama_adapter.py --base base-q8_0.gguf --adapter adapter.gguf --lichen target/release/lichen

Logits of one sequence at every position, with the adapter and without it; keys and values in float32 in both programs.
The two round activations at other places, so the bound is on the difference's root mean square, as a share of that of
what the adapter changes: 0.5% by default, or twice what the two differ by without the adapter where that is more (a
Q8_0 base: 30 times more; llama.cpp's table of GELU in float16 also shows).
Exit code 1 when it is passed, when a logit is not finite, when a greedy token differs where the two best are further
apart than eight times the bound, and when the adapter changes next to nothing in llama.cpp.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy
from safetensors.numpy import load_file

N_TOKENS = 48


def llama_logits(base, adapter, tokens):
    """(tokens, vocabulary); tokens None: a seeded sequence over the vocabulary. Returns tokens and logits."""
    float32 = llama_cpp.GGML_TYPE_F32
    llama = llama_cpp.Llama(base, lora_path=adapter, n_ctx=512, n_batch=512, n_threads=2, logits_all=True,
                            type_k=float32, type_v=float32, verbose=False)
    if tokens is None:
        tokens = numpy.random.default_rng(1).integers(0, llama.n_vocab(), N_TOKENS).tolist()
    llama.eval(tokens)
    return tokens, numpy.array(llama.scores[: len(tokens)], dtype=numpy.float64)


def lichen_logits(arguments, adapter, tokens):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.safetensors"
        command = [arguments.lichen, "logits", "--model", arguments.base, "--tokens", ",".join(map(str, tokens)),
                   "--device", "cpu", "--kv-cache", "f32", "--out", str(out)]
        done = subprocess.run(command + (["--adapter", adapter] if adapter else []), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{arguments.lichen}: exit code {done.returncode}: {done.stderr.strip()}")
        return load_file(out)["logits"].astype(numpy.float64)


def rms(values):
    return float(numpy.sqrt(numpy.mean(values ** 2)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="GGUF file of the base model")
    parser.add_argument("--adapter", required=True, help="GGUF file of the adapter")
    parser.add_argument("--lichen", required=True, help="the lichen program")
    parser.add_argument("--tokens", help="token ids: 3,1,4")
    parser.add_argument("--tolerance", type=float, default=0.005, help="share of what the adapter changes")
    arguments = parser.parse_args()
    tokens = [int(token) for token in arguments.tokens.split(",")] if arguments.tokens else None

    tokens, base = llama_logits(arguments.base, None, tokens)
    _, theirs = llama_logits(arguments.base, arguments.adapter, tokens)
    ours_base = lichen_logits(arguments, None, tokens)
    ours = lichen_logits(arguments, arguments.adapter, tokens)

    change, floor, difference = rms(theirs - base), rms(ours_base - base), rms(ours - theirs)
    bound = max(arguments.tolerance * change, 2 * floor)
    largest = float(numpy.abs(ours - theirs).max())
    best = numpy.sort(theirs, axis=-1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > 8 * bound
    flipped = int((ours.argmax(-1) != theirs.argmax(-1))[clear].sum())
    print(f"{len(tokens)} tokens, {theirs.shape[1]} logits each; all root mean squares:")
    print(f"  the adapter changes llama.cpp's logits by {change:.2e} (Lichen's by {rms(ours - ours_base):.2e})")
    print(f"  without it Lichen and llama.cpp differ by {floor:.2e}, with it by {difference:.2e}; bound {bound:.2e}")
    print(f"  largest difference {largest:.2e}; {flipped} of {int(clear.sum())} clear choices differ")
    # Each is written so that NaN fails.
    visible = change > 10 * floor and change > 1e-3 * rms(base)
    if not visible:
        print("  the adapter changes too little for this to say anything: try a float32 base")
    good = visible and difference <= bound and flipped == 0
    print("equal" if good else "DIFFERENT")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
