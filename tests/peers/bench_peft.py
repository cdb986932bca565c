"""LoRA training: Lichen beside PyTorch + PEFT on one CPU, in alternating rounds: seconds a step, peak memory.

    pip install torch transformers peft
    cargo build --release
    python bench_peft.py --lichen-train target/release/lichen-train --rounds 5 --out result.json
    python bench_peft.py --only-peft --rounds 1 --steps 1

Both train Gemma 3 1B's shape with random weights (26 x 1152 x 6912, vocabulary 262,144, tied): a LoRA of rank 8 on
all seven linears, AdamW, one row of 256 tokens, all labelled. PyTorch holds the base in bf16, as PEFT's users do, with
gradient checkpointing and without, its adapter in float32 (PEFT's default). Lichen holds the base in Q8_0 and in NF4,
from `lichen-train bench --geometry`, within a memory budget, or without one: then it keeps every layer. Each
measurement is a process of its own. PyTorch's first step is not counted (it plans kernels), nor is Lichen's; the
figure of one measurement is the median of its steps. PyTorch needs 5 GB. Machines are noisy, so only the ratio of
medians over alternating rounds means something; on a busy one `cpu_s_per_step`, shown per round, over the number of
threads is near what PyTorch's step takes on an idle one, and a little above it (threads spin).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

# OpenBLAS reads these when it loads; they are set for other programs on some machines and would slow PyTorch down.
NOT_FOR_PYTORCH = ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]

# A child process of its own, so that its peak memory starts from nothing, as Lichen's does.
CHILD = """
import json, resource, statistics, sys, time
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
threads, n_tokens, rank, steps, checkpointing = (int(x) for x in sys.argv[1:6])
torch.set_num_threads(threads)
torch.manual_seed(1)
config = Gemma3TextConfig(
    num_hidden_layers=26, hidden_size=1152, intermediate_size=6912, num_attention_heads=4, num_key_value_heads=1,
    head_dim=256, vocab_size=262144, sliding_window=512, query_pre_attn_scalar=256, max_position_embeddings=32768,
    tie_word_embeddings=True, use_cache=False)
torch.set_default_dtype(torch.bfloat16)
model = Gemma3ForCausalLM(config)
torch.set_default_dtype(torch.float32)
linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none",
                                         target_modules=linears, task_type="CAUSAL_LM"))
if checkpointing:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model.train()
adapters = [p for p in model.parameters() if p.requires_grad]
optimiser = torch.optim.AdamW(adapters, lr=1e-4)
tokens = torch.randint(4, 262144, (1, n_tokens))
seconds, cpu_seconds, losses = [], [], []
for step in range(steps + 1):
    start, cpu_start = time.perf_counter(), time.process_time()
    optimiser.zero_grad()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimiser.step()
    losses.append(float(loss.detach()))
    seconds.append(time.perf_counter() - start)
    cpu_seconds.append(time.process_time() - cpu_start)
print(json.dumps({"s_per_step": statistics.median(seconds[1:]), "first_step_s": seconds[0],
    "cpu_s_per_step": statistics.median(cpu_seconds[1:]),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "loss_first": losses[0],
    "loss_last": losses[-1], "n_trained": sum(p.numel() for p in adapters), "torch": torch.__version__,
    "base": str(model.base_model.model.model.embed_tokens.weight.dtype), "adapter": str(adapters[0].dtype)}))
"""


def output_of(command, environment=None):
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:2])}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1] if command[0] == sys.executable else done.stdout)


def peft_round(args, checkpointing):
    environment = {key: value for key, value in os.environ.items() if key not in NOT_FOR_PYTORCH}
    environment["OMP_NUM_THREADS"] = str(args.threads)
    numbers = [args.threads, args.tokens, args.rank, args.steps, int(checkpointing)]
    return output_of([sys.executable, "-c", CHILD, *map(str, numbers)], environment)


def lichen_round(args, case):
    """`q8_0`, or `q8_0:1.7GB` within that memory."""
    quant, _, budget = case.partition(":")
    out = output_of([args.lichen_train, "bench", "--geometry", "gemma-3-1b", "--format", quant,
                     "--rank", str(args.rank), "--max-seq", str(args.tokens), "--steps", str(args.steps),
                     "--threads", str(args.threads), "--json", *(["--memory-budget", budget] if budget else [])])
    return {"s_per_step": out["s_per_step"], "peak_mib": out["peak_rss_bytes"] / 2**20,
            "loss_first": out["loss_first"], "loss_last": out["loss_last"]}


def measure(args):
    """What was measured -> its rounds, in the order of each round."""
    turns = {"peft": lambda: peft_round(args, False), "peft-checkpointing": lambda: peft_round(args, True)}
    if not args.only_peft:
        for quant in args.formats.split(","):
            turns[f"lichen-{quant}"] = lambda quant=quant: lichen_round(args, quant)
    rounds = {name: [] for name in turns}
    for i in range(args.rounds):
        for name, turn in turns.items():
            rounds[name].append(turn())
            if not all(math.isfinite(rounds[name][-1][key]) for key in ["loss_first", "loss_last"]):
                sys.exit(f"{name}: the loss is not a number, so its time says nothing: {rounds[name][-1]}")
            print(f"round {i + 1}: {name} {rounds[name][-1]}", file=sys.stderr)
    return rounds


def summary(args, rounds):
    """Medians of every figure, and Lichen's as a ratio to both of PyTorch's: below 1 is faster, or smaller."""
    result = {"peft": "bf16, LoRA float32", "geometry": "gemma-3-1b", "threads": args.threads, "tokens": args.tokens,
              "rank": args.rank, "steps": args.steps, "rounds": args.rounds, "torch": rounds["peft"][0]["torch"],
              "time": time.strftime("%Y-%m-%d")}
    for key in ["s_per_step", "peak_mib"]:
        medians = {name: statistics.median(r[key] for r in rs) for name, rs in rounds.items()}
        result[key] = {name: round(median, 3) for name, median in medians.items()}
        for name in medians:
            if name.startswith("lichen"):
                for peer in ["peft", "peft-checkpointing"]:
                    result[key][f"{name} / {peer}"] = round(medians[name] / medians[peer], 3)
    seconds = {name: s for name, s in result["s_per_step"].items() if "/" not in name}
    result["tokens_per_s"] = {name: round(args.tokens / s, 2) for name, s in seconds.items()}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lichen-train", help="the lichen-train program")
    parser.add_argument("--only-peft", action="store_true", help="measure PyTorch alone")
    parser.add_argument("--formats", default="q8_0,q8_0:1.7GB,nf4:1.2GB",
                        help="Lichen's weights, each with a memory budget or without, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--out", help="also write the result to this file")
    args = parser.parse_args()
    if args.only_peft == bool(args.lichen_train):
        parser.error("either --lichen-train PROGRAM or --only-peft")
    if min(args.rounds, args.steps, args.threads, args.rank) < 1 or args.tokens < 2:
        parser.error("rounds, steps, threads and rank are 1 or more, tokens 2 or more")
    text = json.dumps(summary(args, measure(args)), indent=2)
    print(text)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
