"""Opens a LoRA adapter that Lichen wrote in PEFT, in float32, and compares logits with `lichen logits`.

    pip install torch transformers peft safetensors
    python check_peft.py --base model --adapter adapter --lichen target/release/lichen
    python check_peft.py --base model --adapter adapter --lichen target/release/lichen --tokens 2,3,1,4

Without --tokens: two seeded sequences over the whole vocabulary, one longer than Gemma's sliding window. Exit code 1
when a logit differs by more than the tolerance or is not finite, when a greedy token differs where the two best are
further apart than twice the tolerance, when PEFT leaves out a tensor of the file or fills one in by itself, and when
the adapter moves no logit by more than ten times the tolerance: then equal logits would say nothing about it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

LENGTHS = [48, 520]


def load(base, adapter):
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager", device_map="cpu"
    )
    return PeftModel.from_pretrained(model, adapter).eval()


def problem_of_tensors(model, adapter):
    """PEFT only warns of tensors it misses, and is silent about those it has no place for."""
    file = load_file(Path(adapter) / "adapter_model.safetensors")
    # Else PEFT asks the network whether the base model's vocabulary was changed.
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    missing, unknown = sorted(held.keys() - file.keys()), sorted(file.keys() - held.keys())
    if missing or unknown:
        return f"PEFT finds {len(missing)} tensors missing {missing[:2]} and {len(unknown)} too many {unknown[:2]}"
    changed = [name for name in file if not torch.equal(file[name].float(), held[name].float())]
    if changed:
        return f"PEFT holds other values than the file in {len(changed)} tensors {changed[:2]}"
    print(f"{adapter}: all {len(file)} tensors have their place in PEFT")
    return None


def sequences(arguments, config):
    if arguments.tokens:
        return [[int(token) for token in arguments.tokens.split(",")]]
    n_most = min(config.max_position_embeddings, max(LENGTHS))
    random = torch.Generator().manual_seed(1)
    return [torch.randint(config.vocab_size, (min(n, n_most),), generator=random).tolist() for n in LENGTHS]


def lichen_logits(arguments, tokens):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.safetensors"
        command = [arguments.lichen, "logits", "--model", arguments.base, "--adapter", arguments.adapter,
                   "--tokens", ",".join(map(str, tokens)), "--device", "cpu", "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{arguments.lichen}: exit code {done.returncode}: {done.stderr.strip()}")
        return load_file(out)["logits"]


def check(model, arguments, tokens):
    """True when Lichen and PEFT agree on one sequence."""
    tolerance = arguments.tolerance
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([tokens])).logits[0].float()
        with model.disable_adapter():
            base = model(input_ids=torch.tensor([tokens])).logits[0].float()
    ours = lichen_logits(arguments, tokens)
    difference = (ours - theirs).abs().max().item()
    moved = (theirs - base).abs().max().item()
    top = theirs.topk(2, dim=-1).values
    clear = (top[:, 0] - top[:, 1]) > 2 * tolerance
    flipped = int((ours.argmax(-1) != theirs.argmax(-1))[clear].sum())
    # Not `difference > tolerance`: NaN must fail.
    good = difference <= tolerance and flipped == 0 and moved > 10 * tolerance
    print(f"{'equal' if good else 'DIFFERENT':9} {len(tokens):4} tokens, largest difference {difference:.2e}, "
          f"tolerance {tolerance:.0e}, {flipped} clear choices differ; the adapter moves logits by up to {moved:.2e}, "
          f"logits up to {theirs.abs().max():.1f}")
    if not moved > 10 * tolerance:
        print("          the adapter moves too little for this to say anything")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="Hugging Face folder of the base model")
    parser.add_argument("--adapter", required=True, help="PEFT folder")
    parser.add_argument("--lichen", required=True, help="the lichen program")
    parser.add_argument("--tokens", help="token ids: 3,1,4")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model = load(arguments.base, arguments.adapter)
    problem = problem_of_tensors(model, arguments.adapter)
    if problem:
        print(f"DIFFERENT {problem}")
    results = [check(model, arguments, tokens) for tokens in sequences(arguments, model.config)]
    sys.exit(1 if problem or not all(results) else 0)


if __name__ == "__main__":
    main()
