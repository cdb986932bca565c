"""Trains the demo model on the CPU: PyTorch, transformers' Gemma3ForCausalLM, AdamW, warm-up and cosine, one seed.

    python train.py --corpus DIR --out HF_DIR [--steps 4000] [--threads 1]
    python train.py --corpus POLISH_DIR --out HF_DIR --continue --steps 600 --peak-lr 6e-4 --long-share 0

HF_DIR already holds the tokenizer (make_tokenizer.py). Documents are packed into rows of 256 tokens, and of 512 in the
last quarter (--long-share) so that the global layer meets longer distances. Answers weigh 1 in the loss, the rest of a chat 0.2. Matrix
products run in bfloat16 (2.5 times faster than float32 on a CPU with AVX512-BF16); the weights are float32 throughout.
"""

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from make_rows import encode_corpus
from make_tokenizer import write_json
from model_config import CONFIG

SEED = 20250102
TOKENS_PER_STEP = 2048
CONTEXT_WEIGHT = 0.2
FINAL_LR_SHARE, WARMUP_SHARE = 0.02, 0.0375
WEIGHT_DECAY = 0.05
SAVE_EVERY = 250


def weighted_corpus(path, tokenizer):
    """[(ids, weights)]: a chat's answers and their end marks weigh 1, its other tokens less, a plain text's all 1."""
    documents = encode_corpus(path, tokenizer)
    return [(ids, [1.0 if answer else CONTEXT_WEIGHT for answer in is_answer]) for ids, is_answer in documents]


def packed_rows(documents, length, rng):
    """Endless (length + 1) rows of whole documents, a new order each pass; what does not fit is padded with weight 0."""
    while True:
        order = list(range(len(documents)))
        rng.shuffle(order)
        ids, weights = [], []
        for index in order:
            more_ids, more_weights = documents[index]
            if ids and len(ids) + len(more_ids) > length + 1:
                pad = length + 1 - len(ids)
                yield ids + [0] * pad, weights + [0.0] * pad
                ids, weights = [], []
            ids += more_ids[: length + 1 - len(ids)]
            weights += [0.0, *more_weights[1:]][: length + 1 - len(weights)]


def learning_rate(step, n_steps, peak):
    n_warmup = round(n_steps * WARMUP_SHARE)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_model(args):
    torch.manual_seed(SEED)
    if args.resume:
        return Gemma3ForCausalLM.from_pretrained(args.out, dtype=torch.float32, attn_implementation="eager").train()
    model = Gemma3ForCausalLM._from_config(Gemma3TextConfig(**CONFIG), attn_implementation="eager")
    return model.train()


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98), eps=1e-8, fused=True)


def save(model, directory):
    """config.json in the style of released checkpoints and float32 weights, by rename so that readers see whole files."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", CONFIG)
    weights = {k: v.detach().clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    temporary = directory / "model.safetensors.part"
    save_file(weights, str(temporary), metadata={"format": "pt"})
    temporary.chmod(0o644)
    os.replace(temporary, directory / "model.safetensors")


def train(args, model, documents):
    optimizer = make_optimizer(model)

    def loss_of(inputs, targets, weights):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=inputs, use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return (nll * weights.flatten()).sum() / weights.sum()

    compiled = loss_of if args.no_compile else torch.compile(loss_of, dynamic=False)
    rows, length, started, recent = None, 0, time.monotonic(), []
    for step in range(args.steps):
        wanted = 512 if step >= args.steps * (1 - args.long_share) else 256
        if wanted != length:
            length, rows = wanted, packed_rows(documents, wanted, random.Random(SEED + wanted))
        batch = [next(rows) for _ in range(TOKENS_PER_STEP // length)]
        ids, weights = torch.tensor([b[0] for b in batch]), torch.tensor([b[1] for b in batch])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.peak_lr)
        loss = compiled(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent = [*recent[-24:], float(loss.detach())]
        if step % 25 == 24 or step == 0:
            elapsed = time.monotonic() - started
            speed = (step + 1) * TOKENS_PER_STEP / elapsed
            print(f"step {step + 1}/{args.steps} loss {sum(recent) / len(recent):.4f} "
                  f"lr {learning_rate(step, args.steps, args.peak_lr):.2e} {elapsed:.0f} s {speed:.0f} tokens/s", flush=True)
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            save(model, args.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--peak-lr", type=float, default=3e-3)
    parser.add_argument("--long-share", type=float, default=0.25, help="share of the steps with rows of 512 tokens")
    parser.add_argument("--continue", dest="resume", action="store_true", help="start from the weights in --out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile (slower, needs no C++ compiler)")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    documents = weighted_corpus(args.corpus / "train.jsonl", tokenizer)
    model = make_model(args)
    print(f"{len(documents)} documents, {sum(len(d[0]) for d in documents)} tokens, "
          f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(args, model, documents)
    save(model, args.out)


if __name__ == "__main__":
    main()
