"""What `lichen-train full` learns the demo model from: packed rows of token ids, and the first, random weights.

    python make_rows.py --corpus DIR --model HF_DIR --rows FILE [--long-share 0.25] [--passes 1] [--init]

HF_DIR already holds the tokenizer (make_tokenizer.py). Documents are packed into rows of 256 tokens, a share of them of 512
so that the global layer meets longer distances; what does not fit begins the next row. Answers are always labelled. Of a
chat's other tokens one in five is, chosen by a hash of its place: in the mean they weigh a fifth of an answer's. --init
writes config.json and model.safetensors: normal weights of standard deviation 0.02, norms at one.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

import numpy
from jinja2 import Environment
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import spm
from make_tokenizer import BOS, END_OF_TURN, EOS, write_json
from model_config import CONFIG

SEED = 20250102
SHORT, LONG = 256, 512
# One context token in so many is labelled.
CONTEXT_EVERY = 5
IGNORED = -100


def encode_corpus(path, tokenizer):
    """[(ids, is_answer)]: a chat's answers and their end marks, and all of a plain text, are to be learnt."""
    template = Environment().from_string(spm.CHAT_TEMPLATE)
    documents = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            if "text" in document:
                ids = [BOS, *tokenizer.encode(document["text"], add_special_tokens=False).ids, EOS]
                documents.append((ids, [True] * len(ids)))
            else:
                text = template.render(messages=document["messages"], bos_token="<bos>")
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                documents.append((ids, answers(ids, tokenizer)))
    return documents


def answers(ids, tokenizer):
    """Which tokens a model writes: from behind `<start_of_turn>model` and a line end to the end of the turn."""
    start, model = tokenizer.token_to_id("<start_of_turn>"), tokenizer.encode("model", add_special_tokens=False).ids
    head = [start, *model, tokenizer.token_to_id("\n")]
    is_answer, inside = [False] * len(ids), False
    for i, token in enumerate(ids):
        if inside:
            is_answer[i] = True
            inside = token != END_OF_TURN
        elif ids[i - len(head) + 1 : i + 1] == head:
            inside = True
    return is_answer


def is_labelled(document, place):
    digest = hashlib.blake2b(f"{SEED} {document} {place}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % CONTEXT_EVERY == 0


def packed_rows(documents, passes, long_share, rng):
    """Rows of at most 257 or 513 tokens of whole documents, a new order each pass."""
    length = SHORT
    for _ in range(passes):
        order = list(range(len(documents)))
        rng.shuffle(order)
        ids, labels = [], []
        for index in order:
            more, is_answer = documents[index]
            if ids and len(ids) + len(more) > length + 1:
                yield ids, labels
                ids, labels = [], []
                length = LONG if rng.random() < long_share * SHORT / LONG else SHORT
            # A document's first token is not to be guessed from the one before.
            wanted = [i > 0 and (is_answer[i] or is_labelled(index, i)) for i in range(len(more))]
            ids += more[: length + 1 - len(ids)]
            labels += [t if w else IGNORED for t, w in zip(more, wanted)][: length + 1 - len(labels)]
        yield ids, labels


def parameters():
    """Name and shape of every weight."""
    c = CONFIG
    wide, hidden, head = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (c["vocab_size"], wide)
    yield "model.norm.weight", (wide,)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name in ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]:
            yield f"{layer}.{name}.weight", (wide,)
        for name, shape in [("q_proj", (q, wide)), ("k_proj", (kv, wide)), ("v_proj", (kv, wide)), ("o_proj", (wide, q))]:
            yield f"{layer}.self_attn.{name}.weight", shape
        for name in ["q_norm", "k_norm"]:
            yield f"{layer}.self_attn.{name}.weight", (head,)
        for name, shape in [("gate_proj", (hidden, wide)), ("up_proj", (hidden, wide)), ("down_proj", (wide, hidden))]:
            yield f"{layer}.mlp.{name}.weight", shape


def write_first_weights(directory):
    rng = numpy.random.default_rng(SEED)
    std = CONFIG["initializer_range"]
    weights = {}
    for name, shape in parameters():
        # Gemma's files hold a norm's factor less one.
        values = numpy.zeros(shape) if len(shape) == 1 else rng.normal(0.0, std, shape)
        weights[name] = values.astype(numpy.float32)
    write_json(directory / "config.json", CONFIG)
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the folder with tokenizer.json")
    parser.add_argument("--rows", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--long-share", type=float, default=0.25, help="share of the tokens in rows of 512")
    parser.add_argument("--init", action="store_true", help="write config.json and random weights")
    args = parser.parse_args()

    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    if args.init:
        write_first_weights(args.model)
    documents = encode_corpus(args.corpus / "train.jsonl", tokenizer)
    n_rows = n_tokens = 0
    with open(args.rows, "w", encoding="utf-8") as out:
        for ids, labels in packed_rows(documents, args.passes, args.long_share, random.Random(SEED)):
            out.write(json.dumps({"input_ids": ids, "labels": labels}, separators=(",", ":")) + "\n")
            n_rows, n_tokens = n_rows + 1, n_tokens + len(ids)
    print(f"{len(documents)} documents, {n_tokens} tokens in {n_rows} rows", flush=True)


if __name__ == "__main__":
    main()
