"""Opens a GGUF that Lichen wrote in llama.cpp and compares greedy answers with `lichen generate`, token by token.

    pip install llama-cpp-python jinja2          (builds llama.cpp: a C++ compiler and a few minutes)
    python check_llama_cpp.py --model model-q8_0.gguf --lichen target/release/lichen
    python check_llama_cpp.py --model model-q8_0.gguf --lichen target/release/lichen --prompts questions.txt

Per prompt: the model's own chat template is rendered by jinja2 and cut into tokens by llama.cpp; llama.cpp and Lichen
continue those tokens greedily; then Lichen does the whole way by itself from the text. Ids, text and prompt length must
be equal. The two compute with other roundings, so a nearly even choice can fall differently: the smallest distance
between the two best tokens is printed with a difference. Exit code 1 when anything differs.
"""

import argparse
import json
import subprocess
import sys

import jinja2
import numpy
from llama_cpp import Llama

PROMPTS = [
    "What is the capital of France?",
    "Who are you?",
    "How many grams are in a kilogram?",
    "भारत की राजधानी क्या है?",
    "ಕರ್ನಾಟಕದ ರಾಜಧಾನಿ ಯಾವುದು?",
    "Say hello 👋 to <start_of_turn> and {braces}.",
    "  two  spaces\n\nand\ttabs ",
]
TURN_MARKERS = ["<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"]
MARK = "\ue000"  # stands for the prompt while the scaffolding around it is looked at


def raise_exception(message):
    raise ValueError(message)


def rendered(llama, prompt):
    """The prompt in the template of the file, ready for one answer."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string(llama.metadata["tokenizer.chat_template"])
    bos = llama.detokenize([llama.token_bos()], special=True).decode() if llama.token_bos() >= 0 else ""
    messages = [{"role": "user", "content": prompt}]
    return template.render(messages=messages, add_generation_prompt=True, bos_token=bos)


def tokens_of(llama, prompt):
    """Template text may become control tokens, the prompt itself may not: the same rule as Lichen's."""
    cut = lambda text, special: llama.tokenize(text.encode(), add_bos=False, special=special)
    whole = rendered(llama, prompt)
    before, after = rendered(llama, MARK).split(MARK)
    text = whole[len(before):len(whole) - len(after)]
    if not any(marker in text for marker in TURN_MARKERS):
        return cut(whole, True)
    return cut(before, True) + cut(text, False) + cut(after, True)


def greedy(llama, tokens, ends, n_max):
    """Greedy continuation, end token included, and the smallest distance between the two best logits."""
    llama.reset()
    answer, margin, fed = [], float("inf"), tokens
    while len(answer) < n_max:
        llama.eval(fed)
        logits = numpy.array(llama.scores[llama.n_tokens - 1])
        best = numpy.partition(logits, -2)[-2:]
        margin = min(margin, float(best[1] - best[0]))
        answer.append(int(logits.argmax()))
        if answer[-1] in ends:
            break
        fed = answer[-1:]
    return answer, margin


def lichen(program, model, arguments, n_max):
    command = [program, "generate", "--model", model, "--temperature", "0", "--max-new-tokens", str(n_max), "--json"]
    done = subprocess.run(command + arguments, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{program}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--lichen", required=True, help="the lichen program")
    parser.add_argument("--prompts", help="file with one prompt per line")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    arguments = parser.parse_args()
    prompts = open(arguments.prompts, encoding="utf-8").read().splitlines() if arguments.prompts else PROMPTS

    llama = Llama(arguments.model, n_ctx=1024, n_threads=2, logits_all=True, verbose=False)
    named = [llama.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ["eos", "eot"]]
    ends = {int(token) for token in named if token is not None}
    n_wrong = 0
    for prompt in prompts:
        tokens = tokens_of(llama, prompt)
        ours_from_ids = lichen(arguments.lichen, arguments.model, ["--tokens", ",".join(map(str, tokens))],
                               arguments.max_new_tokens)
        ours = lichen(arguments.lichen, arguments.model, ["--prompt", prompt], arguments.max_new_tokens)
        theirs, margin = greedy(llama, tokens, ends, arguments.max_new_tokens)
        problems = []
        if ours_from_ids["token_ids"] != theirs:
            problems.append(f"ids: lichen {ours_from_ids['token_ids']}, llama.cpp {theirs}, margin {margin:.4f}")
        if ours["token_ids"] != ours_from_ids["token_ids"]:
            problems.append(f"from text: {ours['token_ids']}, from llama.cpp's tokens: {ours_from_ids['token_ids']}")
        if ours["prompt_tokens"] != len(tokens):
            problems.append(f"prompt: lichen {ours['prompt_tokens']} tokens, llama.cpp {len(tokens)}")
        n_wrong += bool(problems)
        print(f"{'DIFFERENT' if problems else 'equal':9} {prompt!r} -> {ours['text']!r} "
              f"({len(theirs)} tokens, margin {margin:.3f})")
        for problem in problems:
            print(f"          {problem}")
    print(f"{len(prompts) - n_wrong} of {len(prompts)} prompts equal")
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
