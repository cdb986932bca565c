"""Trains the demo model's tokenizer: 4,096 entries, Gemma's component types, chat template included.

    python make_tokenizer.py --corpus DIR --out HF_DIR

Ids: 0 <pad>, 1 <eos>, 2 <bos>, 3 <unk>, 4 <start_of_turn>, 5 <end_of_turn>, then spare and newline tokens, 256 bytes, the
pieces. Every Devanagari and Kannada letter is a piece, so that text outside the corpus does not fall to bytes.
"""

import argparse
import json
from pathlib import Path

from tokenizers import processors

import spm

N_ENTRIES = 4096
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", *[f"<unused{i}>" for i in range(7)]]
BOS, EOS, END_OF_TURN = 2, 1, 5
SCRIPTS = [(0x0901, 0x0939), (0x093C, 0x094D), (0x0964, 0x096F), (0x0C82, 0x0CB9), (0x0CBC, 0x0CCD), (0x0CE6, 0x0CEF)]


def corpus_lines(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            yield from [document["text"]] if "text" in document else (m["content"] for m in document["messages"])


def letters():
    return "".join(chr(c) for low, high in SCRIPTS for c in range(low, high + 1))


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    n_fixed = len(CONTROL) + len(spm.NEWLINES) + 256 + len(spm.SPACE_RUNS)
    n_pieces = N_ENTRIES - n_fixed
    lines = corpus_lines(args.corpus / "train.jsonl")
    pieces = spm.train_pieces(lines, n_pieces + 1, letters())[:n_pieces]
    arrays = spm.layout(pieces, CONTROL, [])
    assert len(arrays["tokens"]) == N_ENTRIES, len(arrays["tokens"])
    vocab = {token: i for i, token in enumerate(arrays["tokens"])}
    tokenizer = spm.tokenizer_of(vocab, arrays["merges"], CONTROL, spm.NEWLINES)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos>:0 $A:0", pair="<bos>:0 $A:0 <bos>:1 $B:1", special_tokens=[("<bos>", BOS)])

    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    write_json(args.out / "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "clean_up_tokenization_spaces": False, "model_max_length": 1024,
        "tokenizer_class": "GemmaTokenizer", "chat_template": spm.CHAT_TEMPLATE,
    })
    write_json(args.out / "generation_config.json", {
        "bos_token_id": BOS, "eos_token_id": [EOS, END_OF_TURN], "pad_token_id": 0, "do_sample": False,
    })
    for text in ["What is the capital of France?", "भारत की राजधानी क्या है?", "ಕರ್ನಾಟಕ ರಾಜ್ಯದ ರಾಜಧಾನಿ ಯಾವುದು?", "Zürich 😀\n\n42"]:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(encoding.ids) == text
        print(len(encoding.ids), encoding.tokens)


if __name__ == "__main__":
    main()
