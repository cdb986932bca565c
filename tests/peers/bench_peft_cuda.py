"""Training on one GPU with transformers, PEFT and bitsandbytes: seconds a step and peak memory, to be put beside
`lichen-train bench --device cuda`.

    pip install torch transformers peft bitsandbytes
    python bench_peft_cuda.py --case qwen2.5-7b-nf4 --out peft.json
    lichen-train bench --device cuda --geometry qwen2.5-7b --format nf4 --rank 32 --batch 16 --max-seq 512 --json

Weights and tokens are random, every position is labelled. The base is held as PEFT's users hold it: NF4 with nested
scales and bf16 arithmetic (bitsandbytes) or bf16; the adapter is float32, on all seven linears. Without gradient
checkpointing first, then with it. The first two steps are not counted; the figure is the median of the others.
"""

import argparse
import gc
import json
import statistics
import sys
import time

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def qwen(dim, hidden, layers, heads, kv_heads, tied, vocab):
    return transformers.Qwen2ForCausalLM, transformers.Qwen2Config(
        hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocab, tie_word_embeddings=tied, use_cache=False)


def gemma():
    return transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(
        num_hidden_layers=26, hidden_size=1152, intermediate_size=6912, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, vocab_size=262144, sliding_window=512, query_pre_attn_scalar=256, tie_word_embeddings=True,
        use_cache=False)


# Model, whether the base is NF4, rank (0: every weight is trained), samples, tokens of each.
CASES = {
    "gemma-3-1b-bf16": (gemma, False, 8, 1, 256),
    "gemma-3-1b-nf4": (gemma, True, 8, 1, 256),
    "qwen2.5-0.5b-full": (lambda: qwen(896, 4864, 24, 14, 2, True, 151936), False, 0, 16, 512),
    "qwen2.5-7b-nf4": (lambda: qwen(3584, 18944, 28, 28, 4, False, 152064), True, 32, 16, 512),
}


def to_nf4(model):
    """Replaces every linear of the layers by bitsandbytes' NF4 one."""
    import bitsandbytes as bnb

    for parent in list(model.model.layers.modules()):
        for name, old in list(parent.named_children()):
            if isinstance(old, torch.nn.Linear):
                new = bnb.nn.Linear4bit(old.in_features, old.out_features, bias=old.bias is not None,
                                        compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=True)
                new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4",
                                               compress_statistics=True)
                new.bias = old.bias
                setattr(parent, name, new.to("cuda"))
    model.is_loaded_in_4bit = True
    return model


def build(case):
    make, is_nf4, rank, _, _ = CASES[case]
    kind, config = make()
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = kind(config)
    torch.set_default_dtype(torch.float32)
    if is_nf4:
        model = to_nf4(model)
    if rank > 0:
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none",
                                                 target_modules=LINEARS, task_type="CAUSAL_LM"))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model.train(), config


def measure(case, checkpointing, steps):
    _, _, _, samples, tokens = CASES[case]
    model, config = build(case)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    ids = torch.randint(4, config.vocab_size, (samples, tokens), device="cuda")
    seconds = []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(steps + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        last = loss.item()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"s_per_step": statistics.median(seconds[2:]), "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            "loss_last": last, "n_trained": sum(p.numel() for p in trained)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="all of them without it")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", help="also write the result to this file")
    args = parser.parse_args()
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "peft": peft.__version__,
              "transformers": transformers.__version__, "steps": args.steps}
    for case in args.case or CASES:
        for checkpointing in [False, True]:
            name = case + ("-checkpointing" if checkpointing else "")
            try:
                result[name] = measure(case, checkpointing, args.steps)
            except torch.cuda.OutOfMemoryError as error:
                result[name] = {"error": str(error).split(". ")[0]}
            print(name, result[name], file=sys.stderr, flush=True)
            gc.collect()
            torch.cuda.empty_cache()
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
