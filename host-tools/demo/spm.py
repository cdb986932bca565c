"""A SentencePiece-style BPE vocabulary as Gemma has it, in Hugging Face `tokenizers` and in the arrays of a GGUF."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # GGUF token_type
NEWLINES = ["\n", "\n\n", "\n\n\n"]
SPACE_RUNS = [SPACE * n for n in (2, 3, 4, 8)]
ADDED_SCORE = -1000.0

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first_user_prefix = messages[0]['content'] | trim + '\n\n' -%}"
    "{%- set loop_messages = messages[1:] -%}"
    "{%- else -%}"
    "{%- set first_user_prefix = '' -%}"
    "{%- set loop_messages = messages -%}"
    "{%- endif -%}"
    "{%- for message in loop_messages -%}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%}{%- set role = 'model' -%}"
    "{%- else -%}{%- set role = message['role'] -%}{%- endif -%}"
    "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
    "{{ message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


def byte_pieces():
    return [f"<0x{byte:02X}>" for byte in range(256)]


def all_splits(pieces, scores, vocab):
    """Every way to cut a piece into two pieces, in the order in which Hugging Face writes Gemma's merges:
    score descending, then the longer left part, then the longer right part; equal keys stay in vocabulary order.

    SPM merges any adjacent pair whose concatenation is a piece, so a merge list that is to give the same ids must
    hold every split, not only the one that training happened to use.
    """
    merges = []
    for piece, score in zip(pieces, scores):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [s for s in splits if s[0] in vocab and s[1] in vocab]
        splits.sort(key=lambda s: (vocab[s[0]], vocab[s[1]]))
        merges += [(left, right, score) for left, right in splits]
    merges.sort(key=lambda m: (m[2], len(m[0]), len(m[1])), reverse=True)
    return [(left, right) for left, right, _ in merges]


def train_pieces(lines, n_pieces, more_characters=""):
    """BPE pieces in training order: single characters first, then merged ones. Words carry their space in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(SPACE, "merged_with_next"),
        # Punctuation apart: a word must not be other pieces before a question mark than before a full stop.
        pre_tokenizers.Split(Regex(r"[\p{P}\p{N}\r\n+=<>|~^$`]"), "isolated"),
    ])
    alphabet = [chr(c) for c in range(0x21, 0x7F)] + [SPACE, "\t", *more_characters]
    trainer = trainers.BpeTrainer(vocab_size=n_pieces, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    return [p for p in pieces if p != "\n"]


def layout(pieces, control, user_defined):
    """The vocabulary in Gemma's order: control, user-defined (newlines last), bytes, merged pieces by rank, characters.

    Returns a GGUF's arrays and the merges of tokenizer.json. A piece's score is minus the index of its first merge.
    """
    chars = [p for p in pieces if len(p) == 1]
    merged = SPACE_RUNS + [p for p in pieces if len(p) > 1 and p not in SPACE_RUNS]
    added = control + user_defined + NEWLINES
    tokens = added + byte_pieces() + merged + chars
    token_type = [CONTROL] * len(control) + [USER_DEFINED] * (len(added) - len(control))
    token_type += [BYTE] * 256 + [NORMAL] * (len(merged) + len(chars))
    ids = {token: i for i, token in enumerate(tokens)}
    assert len(ids) == len(tokens)

    rank = [0.0] * len(NEWLINES) + [-1.0 - i for i in range(len(merged))]
    merges = all_splits(NEWLINES + merged, rank, ids)
    first = {}
    for index, (left, right) in enumerate(merges):
        first.setdefault(left + right, -float(index))
    scores = [ADDED_SCORE] * len(added) + [0.0] * 256
    scores += [first[p] for p in merged] + [-float(len(merges) + i) for i in range(len(chars))]
    return {"model": "llama", "tokens": tokens, "scores": scores, "token_type": token_type, "merges": merges}


def tokenizer_of(vocab, merges, specials, user_defined):
    """The component types of Gemma's tokenizer.json."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in specials])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in user_defined])
    return tokenizer
