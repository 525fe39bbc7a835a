"""A fact in a long text, asked for at its end, beyond any window."""

import zlib

from data import prose, words

KINDS = [
    ("The secret code of {x} is {v}.", "What is the secret code of {x}?", "The secret code of {x} is {v}.", "number"),
    ("The access number for the {p} is {v}.", "What is the access number for the {p}?", "The access number for the {p} is {v}.", "number"),
    ("{x} keeps the key in the {w}.", "Where does {x} keep the key?", "{x} keeps the key in the {w}.", "thing"),
    ("The password of {x} is {z}.", "What is the password of {x}?", "The password of {x} is {z}.", "word"),
    ("{x} wrote {v} letters.", "How many letters did {x} write?", "{x} wrote {v} letters.", "number"),
    ("The train to {c} leaves from platform {v}.", "From which platform does the train to {c} leave?", "The train to {c} leaves from platform {v}.", "number"),
    ("The room number of {x} is {v}.", "What is the room number of {x}?", "The room number of {x} is {v}.", "number"),
]  # fmt: skip


def needle(rng):
    fact, ask, answer, kind = rng.choice(KINDS)
    values = {
        "{x}": words.person(rng), "{p}": rng.choice(words.PLACE), "{c}": rng.choice(words.CITY), "{v}": str(rng.randint(1000, 99999)),
        "{w}": f"{rng.choice(words.COLOUR)} {rng.choice(words.THING)}", "{z}": words.nonsense(rng, 5, 9),
    }  # fmt: skip
    for field, value in values.items():
        fact, ask, answer = (t.replace(field, value) for t in (fact, ask, answer))
    check = {"number": values["{v}"], "thing": values["{w}"], "word": values["{z}"]}[kind]
    return fact, ask, answer, check


def drawn(rng, test):
    while True:
        found = needle(rng)
        if (zlib.crc32(found[0].encode()) % 12 == 0) == test:
            return found


def sample(rng, characters=None, questions=None):
    """A text of about this many characters with some needles, and questions about some of them."""
    characters = characters or rng.randint(600, 4500)
    paragraphs, size = [], 0
    while size < characters:
        paragraphs.append(prose.paragraph(rng))
        size += len(paragraphs[-1]) + 2
    count = rng.randint(1, 3) if characters < 6000 else rng.randint(6, 24)
    needles = {}
    while len(needles) < count:
        found = drawn(rng, False)
        needles[found[1]] = found
    needles = list(needles.values())
    for fact, _, _, _ in needles:
        i = rng.randrange(len(paragraphs))
        if rng.random() < 0.35:
            paragraphs.insert(i, fact)
            continue
        sentences = paragraphs[i].split(". ")
        sentences.insert(rng.randint(0, len(sentences)), fact.rstrip("."))
        paragraphs[i] = ". ".join(sentences)
        paragraphs[i] += "" if paragraphs[i].endswith((".", '"', "?")) else "."
    rng.shuffle(needles)
    text = "\n\n".join(paragraphs)
    first = needles[0][1]
    ask = rng.choice([f"{text}\n\n{first}", f"{text}\n\nQuestion: {first}", f"Read this text.\n\n{text}\n\n{first}"])
    messages = []
    for i, (fact, question, answer, _) in enumerate(needles[: questions or (2 if characters < 6000 else 12)]):
        messages.append({"role": "user", "content": question if i else ask})
        messages.append({"role": "assistant", "content": answer, "reasoning": f"The text says: {fact}"})
    return {"messages": messages}


def test_items(rng, count, filler):
    """Specifications: which paragraphs of the filler text, where the needles go, what is asked."""
    items = []
    for _ in range(count):
        start = rng.randrange(len(filler))
        needles = {}
        while len(needles) < 4:
            found = drawn(rng, True)
            needles[found[1]] = found
        (fact, ask, _, check), *others = needles.values()
        size, n, enough = 0, 0, rng.randint(36_500, 38_500)
        while size < enough:
            size += len(filler[(start + n) % len(filler)]) + 2
            n += 1
        places = [rng.randint(0, int(n * 0.9)) for _ in needles]
        items.append({"start": start, "paragraphs": n, "insert": [[p, f[0]] for p, f in zip(places, needles.values())], "ask": ask, "contains": [check]})
    return items


def expand(item, filler):
    paragraphs = [filler[(item["start"] + i) % len(filler)] for i in range(item["paragraphs"])]
    for place, fact in sorted(item["insert"], reverse=True):
        paragraphs.insert(place, fact)
    return [{"role": "user", "content": "\n\n".join(paragraphs) + "\n\n" + item["ask"]}]
