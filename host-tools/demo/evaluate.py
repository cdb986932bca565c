"""Scores the demo model and writes its goldens with transformers in float32.

    python evaluate.py --model HF_DIR [--limit N] [--fresh] [--goldens]

Held-out questions: greedy answers, `contains` = the key is in the answer, `exact` = the answer is word for word.
Perplexity protocol: each document of heldout/text.txt (blank-line separated) is encoded with <bos> in front and no <eos>
behind, cut at the context length; perplexity = exp(sum of -log p over all tokens after <bos> / their count).
With --fresh, questions drawn with a seed that no corpus has: small talk and what it should decline, robots described in the
prompt, and every turn of six-turn chats, right when word for word.
With --goldens, goldens.json is written beside this script: greedy answers of the float32 weights and of the same weights
after a Q8_0 round trip through the PyPI `gguf` package.
"""

import argparse
import json
import math
import time
from importlib.metadata import version
from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType as Type
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from make_corpus import Writer
from make_tokenizer import BOS, END_OF_TURN, EOS, write_json

HERE = Path(__file__).resolve().parent
FRESH_SEED = 20250777
MAX_NEW_TOKENS = 48
GOLDEN_CHATS = [
    ["What is the capital of France?"],
    ["How many seconds are in one minute?"],
    ["Who are you?"],
    ["What is a GPU?"],
    ["What is 3 + 4?"],
    ["Who is the president of Peru?"],
    ["नमस्ते"],
    ["भारत की राजधानी क्या है?"],
    ["पानी किस तापमान पर उबलता है?"],
    ["सोमवार के बाद कौन सा दिन आता है?"],
    ["ನೀವು ಯಾರು?"],
    ["ಕರ್ನಾಟಕ ರಾಜ್ಯದ ರಾಜಧಾನಿ ಯಾವುದು?"],
    ["ಬಿಸಿ ಪದದ ವಿರುದ್ಧ ಪದ ಯಾವುದು?"],
    ["Hello!", "What is the capital of Kerala?", "केरल की राजधानी क्या है?"],
    ["ನಮಸ್ಕಾರ", "ಜಪಾನ್ ದೇಶದ ರಾಜಧಾನಿ ಯಾವುದು?", "ಧನ್ಯವಾದಗಳು"],
    ["This robot is called Kolu. It has 6 wheels. How many wheels does it have?", "What is the robot's name?"],
]


def load(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def greedy(model, ids, max_new_tokens=MAX_NEW_TOKENS):
    """Token ids up to and without the end token, and the smallest top-1 to top-2 margin met on the way."""
    answer, margin, cache = [], float("inf"), None
    tokens = torch.tensor([ids])
    with torch.no_grad():
        while len(answer) < max_new_tokens:
            out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
            cache, top = out.past_key_values, torch.topk(out.logits[0, -1], 2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            token = int(top.indices[0])
            if token in (EOS, END_OF_TURN):
                return answer, margin, "stop"
            answer.append(token)
            tokens = top.indices[:1][None]
    return answer, margin, "length"


class Chat:
    """Renders through the tokenizer directory's own template."""

    def __init__(self, directory):
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.template = AutoTokenizer.from_pretrained(directory)

    def ids(self, messages):
        text = self.template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer(self, model, messages):
        ids = self.ids(messages)
        answer, margin, finish = greedy(model, ids)
        return {"prompt_ids": ids, "answer_ids": answer, "answer": self.tokenizer.decode(answer), "finish_reason": finish,
                "smallest_margin": round(margin, 4)}


def score_questions(model, chat, limit=None):
    records = [json.loads(line) for line in open(HERE / "heldout" / "qa.jsonl", encoding="utf-8")]
    records = records[:: max(1, len(records) // limit)] if limit else records
    groups, misses = {}, []
    for record in records:
        got = chat.answer(model, [{"role": "user", "content": record["question"]}])["answer"].strip()
        contains, exact = record["key"] in got, got == record["answer"]
        for name in ("all", record["lang"], record["relation"]):
            group = groups.setdefault(name, {"questions": 0, "contains": 0, "exact": 0})
            group["questions"] += 1
            group["contains"] += contains
            group["exact"] += exact
        if not contains:
            misses.append(f"{record['question']} -> {got} (want {record['answer']})")
    return groups, misses


def fresh_chats(writer, n=40):
    """(kind, messages with their answers): `n` of each kind and language."""
    for lang in ("en", "hi", "kn"):
        for _ in range(n):
            yield "small talk", writer.chat([writer.intent_turn(lang)])["messages"]
            yield "declined", writer.chat([writer.outside_turn(lang)])["messages"]
    for _ in range(n):
        yield "robots", writer.robot_chat()["messages"]
    for _ in range(n // 2):
        yield "six turns", writer.facts_chat(6)["messages"]


def score_fresh(model, chat):
    """Each turn follows the model's own earlier answers."""
    scores, misses = {}, []
    for kind, messages in fresh_chats(Writer(FRESH_SEED, polish=True)):
        score, said = scores.setdefault(kind, [0, 0]), []
        for message in messages:
            if message["role"] != "assistant":
                said.append(message)
                continue
            got = chat.answer(model, said)["answer"].strip()
            score[0] += got == message["content"]
            score[1] += 1
            if got != message["content"]:
                misses.append(f"{kind}: {said[-1]['content']} -> {got} (want {message['content']})")
            said.append({"role": "assistant", "content": got})
    return scores, misses


def perplexity(model, tokenizer):
    documents = (HERE / "heldout" / "text.txt").read_text(encoding="utf-8").strip("\n").split("\n\n")
    total, count = 0.0, 0
    for document in documents:
        ids = [BOS, *tokenizer.encode(document, add_special_tokens=False).ids][: model.config.max_position_embeddings]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
        total, count = total + float(nll), count + len(ids) - 1
    return {"documents": len(documents), "tokens": count, "nll_sum": round(total, 4), "perplexity": round(math.exp(total / count), 5)}


def q8_0_round_trip(model):
    """Every matrix through Q8_0 blocks and back, as the file that ships holds them; vectors stay float32."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            blocks = gguf.quants.quantize(parameter.detach().numpy(), Type.Q8_0)
            parameter.data.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, Type.Q8_0)))
    return model


def golden_answers(model, chat):
    """Each turn is asked with the model's own earlier answers as history."""
    goldens = []
    for questions in GOLDEN_CHATS:
        messages, turns = [], []
        for question in questions:
            messages.append({"role": "user", "content": question})
            turns.append({"question": question} | chat.answer(model, messages))
            messages.append({"role": "assistant", "content": turns[-1]["answer"]})
        goldens.append({"turns": turns})
    return goldens


def write_goldens(directory, chat, f32, q8_0, figures):
    names = ["torch", "transformers", "tokenizers", "gguf"]
    value = {"made_with": {name: version(name) for name in names}, "max_new_tokens": MAX_NEW_TOKENS} | figures
    value |= {"f32": golden_answers(f32, chat), "q8_0": golden_answers(q8_0, chat)}
    same = sum(a["answer_ids"] == b["answer_ids"] for x, y in zip(value["f32"], value["q8_0"]) for a, b in zip(x["turns"], y["turns"]))
    print(f"golden turns: {sum(len(g['turns']) for g in value['f32'])}, equal in f32 and q8_0: {same}")
    write_json(HERE / "goldens.json", value)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="score about this many held-out questions only")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--goldens", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)
    started = time.monotonic()
    chat, model = Chat(args.model), load(args.model)
    groups, misses = score_questions(model, chat, args.limit)
    for name, g in groups.items():
        print(f"{name:14} {g['questions']:4} questions, contains {g['contains'] / g['questions']:.1%}, exact {g['exact'] / g['questions']:.1%}")
    print("\n".join(misses[:40]))
    figures = {"held_out_questions": groups, "perplexity_f32": perplexity(model, chat.tokenizer)}
    print(figures["perplexity_f32"], f"{time.monotonic() - started:.0f} s")
    if args.fresh:
        scores, misses = score_fresh(model, chat)
        print("\n".join(f"{kind}: {right} of {asked}" for kind, (right, asked) in scores.items()))
        print("\n".join(misses[:40]))
    if args.goldens:
        q8_0 = q8_0_round_trip(load(args.model))
        q8_groups, _ = score_questions(q8_0, chat, args.limit)
        figures |= {"held_out_questions_q8_0": q8_groups["all"], "perplexity_q8_0": perplexity(q8_0, chat.tokenizer)}
        print("q8_0", q8_groups["all"], figures["perplexity_q8_0"])
        write_goldens(args.model, chat, model, q8_0, figures)


if __name__ == "__main__":
    main()
