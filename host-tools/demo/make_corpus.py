"""Generates the demo model's corpus: short chats and plain texts in English, Hindi and Kannada, from the tables beside it.

    python make_corpus.py --out DIR [--documents 150000] [--polish]

Writes DIR/train.jsonl ({"messages": [...]} or {"text": ...} per line) and, beside this script, heldout/qa.jsonl and
heldout/text.txt. A fact is trained with all its question wordings but those that `held_out` picks; held-out texts use
held-out wordings and fresh random values. --polish writes the corpus of the short second stage instead (another seed, a
third of it small talk and questions it cannot answer) and leaves heldout/ alone. No downloads, one seed, the same bytes on every run.
"""

import argparse
import json
import random
import zlib
from pathlib import Path

import facts_casual as casual
import facts_chat as chat
from facts_device import DEFINE, HOW_TO, device_facts
from facts_places import LANGUAGES, place_facts
from facts_world import COLOURS, world_facts
from templates import TEMPLATES

HERE = Path(__file__).resolve().parent
SEED = 20250101
N_HELD_OUT_PER_RELATION = 8  # per relation and language
N_HELD_OUT_TEXTS = 32  # per language
PREFIXES = {
    "en": ["Please tell me: ", "Hi, ", "Can you help? ", "Quick question: ", "Please, ", "Hello! "],
    "hi": ["कृपया बताइए, ", "नमस्ते, ", "एक सवाल: ", "ज़रा बताइए, "],
    "kn": ["ದಯವಿಟ್ಟು ಹೇಳಿ, ", "ನಮಸ್ಕಾರ, ", "ಒಂದು ಪ್ರಶ್ನೆ: ", "ಸ್ವಲ್ಪ ಹೇಳಿ, "],
}
# Sums share their digits across languages and wordings, so each needs fewer examples.
RELATION_WEIGHT = {"add": 0.5, "subtract": 0.5, "opposite": 1.2, "define": 1.5}


def all_templates():
    return TEMPLATES | {"define": DEFINE}


def held_out(relation, key, lang, n_questions):
    """Which wordings of a fact are never trained on: one in about five, at least one, by a hash of the fact."""
    if n_questions < 3:
        return set()
    start = zlib.crc32(f"{relation}/{key}/{lang}".encode())
    step = n_questions // 2 + 1
    return {(start + i * step) % n_questions for i in range(max(1, n_questions // 5))}


def fill(template, slots):
    first = slots["x"]
    return template.format(X=first[:1].upper() + first[1:], **slots)


class Facts:
    """Every (relation, key, language) with its questions split into trained and held out."""

    def __init__(self):
        self.items, self.weights = [], []
        templates = all_templates()
        for relation, key, by_lang in [*place_facts(), *world_facts(), *device_facts()]:
            for lang, slots in by_lang.items():
                forms = templates[relation].get(lang)
                if not forms:
                    continue
                questions = [fill(q, slots) for q in forms["q"]]
                out = held_out(relation, key, lang, len(questions))
                answer = fill(forms["a"][0], slots)
                right = f"= {slots['y']}." if relation in ("add", "subtract") else slots["y"]
                self.items.append({
                    "relation": relation, "lang": lang, "answer": answer, "key": right,
                    "trained": [q for i, q in enumerate(questions) if i not in out],
                    "held_out": [questions[i] for i in sorted(out)],
                    "statements": [fill(s, slots) for s in forms.get("s", [])],
                })
                self.weights.append(RELATION_WEIGHT.get(relation, 1.0))
        self.by_lang = {l: [i for i, f in enumerate(self.items) if f["lang"] == l] for l in LANGUAGES}

    def draw(self, rng, lang, n):
        ids = self.by_lang[lang]
        return [self.items[i] for i in rng.choices(ids, [self.weights[i] for i in ids], k=n)]


def intents(polish):
    """Greetings, identity and how-to questions in the shape of facts; the last wording of five or more is held out."""
    tables = [("greeting", chat.GREETINGS), ("identity", chat.IDENTITY), ("how_to", HOW_TO)]
    for relation, table in [*tables, ("greeting", casual.SMALL_TALK)] if polish else tables:
        for by_lang in table.values():
            for lang, (questions, answer, key) in by_lang.items():
                n = len(questions) - (1 if len(questions) >= 5 and relation != "greeting" else 0)
                yield {"relation": relation, "lang": lang, "answer": answer, "key": key,
                       "trained": questions[:n], "held_out": questions[n:]}


class Writer:
    """Draws documents; every method returns one."""

    def __init__(self, seed, polish=False):
        self.rng = random.Random(seed)
        self.polish = polish
        self.facts = Facts()
        self.intents = list(intents(polish))
        self.countries = {l: [] for l in LANGUAGES}
        for relation, _, by_lang in place_facts():
            if relation == "capital":
                for lang, slots in by_lang.items():
                    self.countries[lang].append(slots["x"])

    def language(self):
        return self.rng.choice(LANGUAGES)

    def name(self, lang):
        syllables, joint = chat.SYLLABLES[lang]
        name = joint.join(self.rng.choices(syllables, k=self.rng.choice([2, 2, 3])))
        return name.capitalize() if lang == "en" else name

    def values(self, lang):
        colour = self.rng.choice(list(COLOURS.values()))[LANGUAGES.index(lang)]
        return {"v": self.name(lang), "n": self.rng.randint(2, 12), "m": 5 * self.rng.randint(1, 18),
                "k": colour, "r": self.rng.choice(chat.ROOMS[lang])}

    def decorate(self, question, lang):
        """What people really type: no question mark, no capitals, a polite start."""
        draw = self.rng.random()
        if draw < 0.60:
            return question
        if draw < 0.75:
            return question.rstrip("?.।")
        if draw < 0.85:
            return question.lower().rstrip("?")
        return self.rng.choice(PREFIXES[lang]) + question

    def fact_turn(self, lang):
        fact = self.facts.draw(self.rng, lang, 1)[0]
        return self.decorate(self.rng.choice(fact["trained"]), lang), fact["answer"]

    def intent_turn(self, lang):
        intent = self.rng.choice([i for i in self.intents if i["lang"] == lang])
        question = self.rng.choice(intent["trained"])
        return self.casual(question) if self.polish else question, intent["answer"]

    def casual(self, text):
        """As typed in a hurry: small letters, no or other punctuation."""
        text = text.lower() if self.rng.random() < 0.5 else text
        return text.rstrip("?.!।") + self.rng.choice(["", "", "!", ".", "?"]) if self.rng.random() < 0.5 else text

    def outside_turn(self, lang):
        keys = "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz", k=self.rng.randint(2, 7)))
        question = self.rng.choice(casual.OUTSIDE[lang]).format(
            c=self.rng.choice(casual.OTHER_COUNTRIES[lang]), t=self.rng.choice(chat.TOPICS[lang]), g=keys,
            a=self.rng.randint(11, 9999 if self.rng.random() < 0.3 else 99), b=self.rng.randint(2, 99))
        return self.casual(question), chat.UNKNOWN[lang][1]

    def unknown_turn(self, lang):
        questions, answer = chat.UNKNOWN[lang]
        question = self.rng.choice(questions).format(
            c=self.rng.choice(self.countries[lang]), p=self.name(lang), t=self.rng.choice(chat.TOPICS[lang]))
        if self.rng.random() < 0.1:  # asked about "this robot" with nothing said about it
            question = self.rng.choice(self.rng.choice(list(chat.ROBOT_CONTEXT[lang].values()))[1])
        return self.decorate(question, lang), answer

    def any_turn(self, lang):
        draw = self.rng.random()
        if draw < 0.78:
            return self.fact_turn(lang)
        return self.intent_turn(lang) if draw < 0.89 else self.unknown_turn(lang)

    def chat(self, turns, system=None):
        messages = [{"role": "system", "content": system}] if system else []
        for question, answer in turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": messages}

    def facts_chat(self, n_turns):
        lang = self.language()
        turns = []
        for _ in range(n_turns):
            lang = self.language() if self.rng.random() < 0.15 else lang
            turns.append(self.any_turn(lang))
        return self.chat(turns)

    def robot_chat(self):
        """A robot is described, then asked about: the answer is in the prompt and nowhere else."""
        lang = self.language()
        table = chat.ROBOT_CONTEXT[lang]
        kinds = self.rng.sample(list(table), self.rng.randint(2, 4))
        values = {kind: self.values(lang) for kind in kinds}
        context = " ".join(table[kind][0].format(**values[kind]) for kind in kinds)
        asked = self.rng.sample(kinds, min(len(kinds), self.rng.choice([1, 1, 2, 3])))
        turns = [(self.rng.choice(table[k][1]), table[k][2].format(**values[k])) for k in asked]
        if self.rng.random() < 0.5:
            return self.chat(turns, system=context)
        turns[0] = (context + " " + turns[0][0], turns[0][1])
        return self.chat(turns)

    def facts_text(self, lang, wordings):
        """Sentences about a few facts, some as a question with its answer, as a page of notes would have them."""
        sentences = []
        for fact in self.facts.draw(self.rng, lang, self.rng.randint(3, 6)):
            if fact["statements"] and self.rng.random() < 0.6:
                sentences.append(self.rng.choice(fact["statements"]))
            else:
                sentences.append(self.rng.choice(fact[wordings] or fact["trained"]) + " " + fact["answer"])
        return self.rng.choice([" ", " ", "\n"]).join(sentences)

    def story_text(self, lang):
        lines = self.rng.sample(chat.STORY[lang], self.rng.randint(3, 6))
        values = self.values(lang)
        return " ".join(line.format(**(self.values(lang) | {"v": values["v"]})) for line in lines)

    def text(self, lang, wordings):
        return self.facts_text(lang, wordings) if self.rng.random() < 0.65 else self.story_text(lang)

    def document(self):
        if self.polish and self.rng.random() < 0.35:
            turn = self.intent_turn if self.rng.random() < 0.5 else self.outside_turn
            return self.chat([turn(self.language())])
        draw = self.rng.random()
        if draw < 0.46:
            return self.chat([self.fact_turn(self.language())])
        if draw < 0.53:
            return self.chat([self.intent_turn(self.language())])
        if draw < 0.58:
            return self.chat([self.unknown_turn(self.language())])
        if draw < 0.78:
            return self.facts_chat(self.rng.choice([2, 2, 3, 3, 4]))
        if draw < 0.80:
            return self.facts_chat(self.rng.randint(6, 10))
        if draw < 0.89:
            return self.robot_chat()
        return {"text": self.text(self.language(), "trained")}


def held_out_questions(rng, writer):
    """Up to eight held-out questions per relation and language, in the order of the tables."""
    groups = {}
    for item in [*writer.facts.items, *writer.intents]:
        for question in item["held_out"]:
            record = {"lang": item["lang"], "relation": item["relation"], "question": question,
                      "answer": item["answer"], "key": item["key"]}
            groups.setdefault((item["relation"], item["lang"]), []).append(record)
    for group in groups.values():
        n = min(len(group), N_HELD_OUT_PER_RELATION)
        yield from (group[i] for i in sorted(rng.sample(range(len(group)), n)))


def check_unseen(writer, questions):
    """No held-out question is trained on under another fact, whatever its capitals and punctuation."""
    plain = lambda text: text.lower().strip(" ?.!।")
    trained = {plain(q) for item in [*writer.facts.items, *writer.intents] for q in item["trained"]}
    seen = [r["question"] for r in questions if plain(r["question"]) in trained]
    assert not seen, seen


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=150_000)
    parser.add_argument("--polish", action="store_true", help="the corpus of the second stage")
    args = parser.parse_args()

    writer = Writer(SEED + 2, polish=True) if args.polish else Writer(SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "train.jsonl", "w", encoding="utf-8") as out:
        for _ in range(args.documents):
            out.write(json.dumps(writer.document(), ensure_ascii=False) + "\n")

    target = HERE / "heldout"
    target.mkdir(exist_ok=True)
    rest = Writer(SEED + 1)
    questions = list(held_out_questions(rest.rng, rest))
    check_unseen(writer, questions)
    if args.polish:
        return
    with open(target / "qa.jsonl", "w", encoding="utf-8") as out:
        for record in questions:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    texts = [rest.text(lang, "held_out") for _ in range(N_HELD_OUT_TEXTS) for lang in LANGUAGES]
    (target / "text.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")

    facts = writer.facts.items
    print(f"{len(facts)} facts by language in {len(set(f['relation'] for f in facts))} relations, "
          f"{args.documents} documents, {len(questions)} held-out questions, {len(texts)} held-out texts")


if __name__ == "__main__":
    main()
