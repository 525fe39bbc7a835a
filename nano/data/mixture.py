"""Which kinds of text are drawn how often."""

from data import arithmetic, chat, jsonform, prose, retrieval, selfknow, tools

KINDS = [(selfknow, 0.24), (arithmetic, 0.15), (tools, 0.29), (jsonform, 0.07), (chat, 0.18), (retrieval, 0.07)]
SYSTEM = ["You are a helpful assistant", "You are a helpful assistant.", "You are DwarfStar Nano.", "You are DwarfStar Nano, a small model.",
          "Be brief.", "Answer in English.", "You are a friendly assistant."]  # fmt: skip


def conversation(rng):
    """Messages, tools, schema; and how it is to be rendered."""
    (kind, _), *_ = rng.choices(KINDS, [share for _, share in KINDS])
    d = kind.sample(rng)
    if kind in (selfknow, arithmetic, chat) and rng.random() < 0.25:
        # A conversation that wanders.
        other, *_ = rng.choices([selfknow, arithmetic, chat])
        d["messages"] = d["messages"] + other.sample(rng)["messages"]
    if kind in (selfknow, arithmetic, chat, retrieval) and rng.random() < 0.4:
        d["messages"] = [{"role": "system", "content": rng.choice(SYSTEM)}] + d["messages"]
    d["thinking"] = rng.random() < (0.85 if kind is arithmetic else 0.6)
    d["effort"] = d["thinking"] and rng.random() < 0.08
    return d


def reading(rng, docs):
    """Plain text: generated English, or a piece of documentation."""
    if rng.random() < 0.5:
        return prose.document(rng)
    text = rng.choice(docs)
    if len(text) > 3000:
        start = text.find("\n", rng.randrange(len(text) - 2500)) + 1
        text = text[start : start + 3000]
    return text
