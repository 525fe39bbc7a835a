"""The tokenizer: byte-level BPE with DeepSeek's split and markers, and conversations as token ids.

Digits are never merged, so that arithmetic sees them one by one.
"""

import json
import pathlib
import random
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import render

VOCAB = 4096
PATH = pathlib.Path(__file__).parent / "tokenizer.json"

SPLIT = [
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""".replace(r"\r\n", "\r\n"),
]
FIRST = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
SPECIAL = {  # the others are "normalized" and not "special" in the official file
    *FIRST, "<｜end_of_query｜>", "<｜rl_image_pad｜>", "<｜rl_image_start｜>", "<｜image｜>",
    *(f"<｜{end}{name}｜>" for name in ("polygon", "point", "box", "ref") for end in ("/", "")),
}  # fmt: skip
LAST = """<｜fim▁hole｜> <｜fim▁begin｜> <｜fim▁end｜> <｜User｜> <｜Assistant｜> <|EOT|> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜>
<｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>
<｜tool▁sep｜> <｜begin▁of▁repo▁name｜> <｜end▁of▁repo▁name｜> <｜begin▁of▁file▁name｜> <｜end▁of▁file▁name｜> <｜begin▁of▁file｜>
<｜end▁of▁file｜> <think> </think> <｜place▁holder▁for▁copy｜> <｜place▁holder▁for▁pointer▁replace｜> ｜DSML｜ <｜begin▁sys｜> <｜end▁sys｜>
<｜latest_reminder｜> <｜action｜> <｜query｜> <｜authority｜> <｜domain｜> <｜task｜> <｜political｜> <｜entity｜> <｜title｜> <｜safety｜>
<｜answer｜> <｜search｜> <dsml: </dsml: <｜search▁begin｜> <｜search▁end｜> <｜extracted_url｜> <｜read_url｜> <｜end_of_query｜>
<｜rl_image_pad｜> <｜rl_image_start｜> <｜image2｜> <｜/table>｜ <｜table｜> <｜/td｜> <｜td｜> <｜/tr｜> <｜tr｜> <｜/polygon｜> <｜polygon｜>
<｜/point｜> <｜point｜> <｜/box｜> <｜box｜> <｜/ref｜> <｜ref｜> <｜image｜>""".split()


def splitter(extra=()):
    stages = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLIT]
    return pre_tokenizers.Sequence([*stages, *extra, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(texts):
    """Merges learnt with every digit alone, then the official split put in place."""
    base = VOCAB - len(LAST)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter([pre_tokenizers.Digits(individual_digits=True)])
    trainer = trainers.BpeTrainer(
        vocab_size=base, special_tokens=FIRST, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), min_frequency=2,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    file = json.loads(tokenizer.to_str())
    assert len(file["model"]["vocab"]) == base
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.ByteLevel()
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": text not in SPECIAL, "special": text in SPECIAL}
        for i, text in [*enumerate(FIRST), *enumerate(LAST, base)]
    ]  # fmt: skip
    return file


class Vocabulary:
    def __init__(self, path=PATH):
        file = json.loads(pathlib.Path(path).read_text())
        self.file = file
        self.markers = {t["content"]: t["id"] for t in file["added_tokens"]}
        plain = dict(file, added_tokens=[])
        # Client text never becomes a marker: this one does not know them.
        plain["model"] = dict(file["model"], vocab={t: i for t, i in file["model"]["vocab"].items() if t not in FIRST})
        for i, t in enumerate(FIRST):
            plain["model"]["vocab"][f"\u0000{i}"] = i
        self.tokenizer = Tokenizer.from_str(json.dumps(plain))
        self.strings = {i: t for t, i in file["model"]["vocab"].items()} | {i: t for t, i in self.markers.items()}
        self.cache = {}

    def text(self, text):
        known = self.cache.get(text)
        if known is None:
            known = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self.cache) < 50_000 and len(text) < 1500:
                self.cache[text] = known
        return known

    def parts(self, parts):
        """Ids, and for each whether the model itself says it."""
        ids, own = [], []
        for (marker, text), mine in parts:
            new = [self.markers[text]] if marker else self.text(text)
            ids += new
            own += [mine] * len(new)
        return ids, own

    def decode(self, ids):
        out, run = [], []
        alphabet = byte_alphabet()
        for i in [*ids, None]:
            if i is None or i in self.markers.values():
                out.append(bytes(run).decode(errors="replace"))
                run = []
                out.append(self.strings[i] if i is not None else "")
            else:
                run += [alphabet[c] for c in self.strings[i]]
        return "".join(out)


def byte_alphabet():
    """GPT-2's printable stand-ins for bytes, inverted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {chr(b): b for b in plain}, 0
    for b in range(256):
        if b not in plain:
            table[chr(256 + extra)] = b
            extra += 1
    return table


def main(docs):
    from data import mixture

    rng = random.Random(20)
    texts = []
    for line in open(docs):
        text = json.loads(line)
        texts += [text[:4000]] if rng.random() < 0.35 else []
    for _ in range(12_000):
        d = mixture.conversation(rng)
        texts += ["".join(t for (m, t), _ in render.render(d["messages"], True, (), d.get("schema")) if not m)]
        texts += [render.dumps(tool) for tool in d.get("tools", ())[:1]]
        texts += [text for marker, text in render.tools_block([]) if not marker] if rng.random() < 0.02 else []
    file = train(texts)
    PATH.write_text(json.dumps(file, ensure_ascii=False, indent=0))
    print(f"{sum(map(len, texts))} characters read, {len(file['model']['merges'])} merges")


if __name__ == "__main__":
    main(sys.argv[1])
