"""Lichen beside llama.cpp on one CPU, in alternating rounds: prefill, decode, first token, peak memory.

    pip install llama-cpp-python gguf numpy      (builds llama.cpp: a C++ compiler and a few minutes)
    cargo build --release
    python bench_llama_cpp.py --lichen target/release/lichen --format q8_0 --rounds 5
    python bench_llama_cpp.py --lichen target/release/lichen --format q4_0 --against nf4
    python bench_llama_cpp.py --lichen target/release/lichen --model gemma-3-270m-q4_k_m.gguf

With --model both run that file. Else both run Gemma 3 1B's shape with random weights: llama.cpp from a GGUF made here (--work, about 1 GB), Lichen from
`bench --geometry`. Machines are noisy, so only the ratio of medians over alternating rounds means something.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy

N_LAYERS, DIM, HIDDEN, HEADS, HEAD_DIM, VOCAB = 26, 1152, 6912, 4, 256, 262144


def write_model(path, body):
    """Random blocks of the true shapes; norms of one; a vocabulary of made-up pieces."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(32768)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(512)
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokens = special + [f"<0x{i:02X}>" for i in range(256)]
    tokens += [f"w{i}" for i in range(VOCAB - len(tokens))]
    kind = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(-i) for i in range(VOCAB)])
    writer.add_token_types(kind + [gguf.TokenType.NORMAL] * (VOCAB - len(kind)))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)

    def matrix(name, rows, cols, quant):
        size = {"q8_0": 34, "q4_0": 18}[quant]
        blocks = random.integers(0, 256, (rows * cols // 32, size), dtype=numpy.uint8)
        spread = 74.0 if quant == "q8_0" else 4.6
        scale = numpy.array([cols ** -0.5 / spread], dtype=numpy.float16).view(numpy.uint8)
        blocks[:, :2] = scale
        dtype = kinds.Q8_0 if quant == "q8_0" else kinds.Q4_0
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=dtype)

    def norm(name, n):
        writer.add_tensor(name, numpy.ones(n, dtype=numpy.float32))

    matrix("token_embd.weight", VOCAB, DIM, "q8_0")
    norm("output_norm.weight", DIM)
    for i in range(N_LAYERS):
        at = f"blk.{i}."
        for name in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]:
            norm(f"{at}{name}.weight", DIM)
        for name in ["attn_q_norm", "attn_k_norm"]:
            norm(f"{at}{name}.weight", HEAD_DIM)
        for name, rows, cols in [("attn_q", HEADS * HEAD_DIM, DIM), ("attn_k", HEAD_DIM, DIM), ("attn_v", HEAD_DIM, DIM),
                                 ("attn_output", DIM, HEADS * HEAD_DIM), ("ffn_gate", HIDDEN, DIM),
                                 ("ffn_up", HIDDEN, DIM), ("ffn_down", DIM, HIDDEN)]:
            matrix(f"{at}{name}.weight", rows, cols, body)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# A child process of its own, so that its peak memory and its first token start from nothing, as Lichen's do.
CHILD = """
import json, resource, sys, time
start = time.perf_counter()
from llama_cpp import Llama
imported = time.perf_counter()
path, threads, prompt, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
llama = Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)
loaded = time.perf_counter()
ids = [300 + i for i in range(prompt)]
runs = []
for i in range(2):
    llama.reset()
    t0 = time.perf_counter()
    llama.eval(ids)
    t1 = time.perf_counter()
    for j in range(new):
        llama.eval([400 + j])
    t2 = time.perf_counter()
    runs.append((t0, t1, t2))
t0, t1, t2 = runs[-1]
print(json.dumps({"prefill": prompt / (t1 - t0), "decode": new / (t2 - t1),
    "first_token_s": (loaded - imported) + (runs[0][1] - runs[0][0]),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def llama_round(model, args):
    command = [sys.executable, "-c", CHILD, model, str(args.threads), str(args.prompt_tokens), str(args.new_tokens)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def lichen_round(args, quant):
    what = ["--model", args.model] if args.model else ["--geometry", "gemma-3-1b", "--format", quant]
    command = [args.lichen, "bench", *what, "--threads", str(args.threads),
               "--prompt-tokens", str(args.prompt_tokens), "--new-tokens", str(args.new_tokens), "--repeat", "1", "--json"]
    out = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"prefill": out["prefill_tokens_per_s"], "decode": out["decode_tokens_per_s"],
            "first_token_s": out["time_to_first_token_s"], "peak_mib": out["peak_rss_bytes"] / 2**20,
            "bandwidth": out["memory_bandwidth_gb_per_s"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lichen", required=True)
    parser.add_argument("--model", help="GGUF file that both run")
    parser.add_argument("--format", default="q8_0", choices=["q8_0", "q4_0"], help="llama.cpp's weights")
    parser.add_argument("--against", help="Lichen's weights; the same by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--work", default="/tmp", help="folder for the model file")
    args = parser.parse_args()
    model = args.model or os.path.join(args.work, f"gemma-3-1b-random-{args.format}.gguf")
    if not pathlib.Path(model).exists():
        write_model(model, args.format)
    ours, theirs = [], []
    for i in range(args.rounds):
        theirs.append(llama_round(model, args))
        ours.append(lichen_round(args, args.against or args.format))
        print(f"round {i + 1}: llama.cpp {theirs[-1]}  lichen {ours[-1]}", file=sys.stderr)
    result = {"llama.cpp": args.model or args.format, "lichen": args.model or args.against or args.format, "threads": args.threads,
              "prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens, "rounds": args.rounds,
              "time": time.strftime("%Y-%m-%d")}
    for key in ["prefill", "decode", "first_token_s", "peak_mib"]:
        a, b = (statistics.median(r[key] for r in rs) for rs in (ours, theirs))
        result[key] = {"lichen": round(a, 2), "llama.cpp": round(b, 2), "ratio": round(a / b, 3)}
    result["read_bandwidth_gb_per_s"] = round(statistics.median(r["bandwidth"] for r in ours), 1)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
