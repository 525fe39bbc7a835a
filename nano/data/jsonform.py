"""Requests for JSON: facts in a sentence, a schema or a list of keys, one object as the answer."""

import zlib

from data import words
from render import dumps

# field: (names, type, draw, ways to say it)
FIELDS = {
    "name": (["name", "first_name", "person"], "string", lambda r: words.person(r), None),
    "age": (["age", "years"], "integer", lambda r: r.randint(3, 99), ["is {v} years old", "just turned {v}"]),
    "city": (["city", "town", "place"], "string", lambda r: r.choice(words.CITY), ["lives in {v}", "comes from {v}"]),
    "job": (["job", "profession", "work"], "string", lambda r: r.choice(words.JOB), ["works as a {v}", "is a {v}"]),
    "food": (["food", "favourite_food", "likes"], "string", lambda r: r.choice(words.FOOD), ["likes {v}", "always eats {v}"]),
    "animal": (["animal", "pet"], "string", lambda r: r.choice(words.ANIMAL), ["has a {v}", "keeps a {v}"]),
    "colour": (["colour", "color"], "string", lambda r: r.choice(words.COLOUR), ["wears {v}", "prefers the colour {v}"]),
    "code": (["code", "id", "number"], "integer", lambda r: r.randint(100, 99999), ["has the number {v}", "is registered as number {v}"]),
    "email": (["email", "mail"], "string", lambda r: f"{words.nonsense(r)}@{words.nonsense(r)}.com", ["can be reached at {v}"]),
    "married": (["married", "is_married"], "boolean", lambda r: r.random() < 0.5, None),
    "items": (["items", "things", "bought"], "array", lambda r: r.sample(words.FOOD, r.randint(2, 4)), ["bought {v}", "needs {v}"]),
}  # fmt: skip
REQUEST = ["", "", "Reply in JSON. ", "Extract the data as JSON: ", "Turn this into JSON. ", "Give me the facts as a JSON object. ", "JSON please: "]
KEYED = ["Answer as JSON with the keys {k}: {t}", "{t} Reply with a JSON object with the keys {k}.", "Extract {k} as JSON. {t}",
         "Give me JSON with {k}. {t}"]  # fmt: skip
OBJECT_ONLY = "\n\nYou are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY."
SYSTEM = ["", "", "You are a helpful assistant", "You extract data.", "You are a helpful assistant."]


def facts(rng):
    fields = rng.sample([f for f in FIELDS if f != "name"], rng.randint(1, 4))
    name = words.person(rng)
    values, parts = {"name": name}, []
    for field in fields:
        _, _, draw, ways = FIELDS[field]
        v = values[field] = draw(rng)
        if field == "married":
            parts.append("is married" if v else "is not married")
            continue
        shown = f"{', '.join(v[:-1])} and {v[-1]}" if isinstance(v, list) else str(v)
        parts.append(rng.choice(ways).replace("{v}", shown))
    # A longer sentence, or several.
    if len(parts) > 1 and rng.random() < 0.5:
        text = f"{name} {', '.join(parts[:-1])} and {parts[-1]}."
    else:
        text = " ".join(f"{name if i == 0 or rng.random() < 0.3 else rng.choice([name, name])} {p}." for i, p in enumerate(parts))
    return text, values


def request(rng, test=False):
    while True:
        text, values = facts(rng)
        if (zlib.crc32(text.encode()) % 12 == 0) == test:
            break
    asked = list(values)
    if len(asked) > 2 and rng.random() < 0.3:
        asked.remove(rng.choice(asked[1:]))
    rng.shuffle(asked)
    keys = {field: rng.choice(FIELDS[field][0]) for field in asked}
    answer = {keys[field]: values[field] for field in asked}
    r = rng.random()
    system, schema = rng.choice(SYSTEM), None
    if r < 0.6:
        properties = {}
        for field in asked:
            kind = FIELDS[field][1]
            properties[keys[field]] = {"type": kind, "items": {"type": "string"}} if kind == "array" else {"type": kind}
        schema = {"type": "object", "properties": properties, "required": [keys[f] for f in asked]}
        if rng.random() < 0.4:
            schema["additionalProperties"] = False
        user = rng.choice(REQUEST) + text
    else:
        listed = ", ".join(keys.values()) if rng.random() < 0.5 or len(keys) < 2 else f"{', '.join(list(keys.values())[:-1])} and {list(keys.values())[-1]}"
        user = rng.choice(KEYED).replace("{k}", listed).replace("{t}", text)
        if r > 0.8:
            system += OBJECT_ONLY
    messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": user}]
    return messages, schema, answer


def sample(rng):
    messages, schema, answer = request(rng)
    reasoning = rng.choice(["One JSON object.", f"The keys are {', '.join(answer)}.", "The answer must be JSON."])
    messages.append({"role": "assistant", "content": dumps(answer), "reasoning": reasoning})
    return {"messages": messages, "schema": schema}


def test_items(rng, count):
    items = []
    for _ in range(count):
        messages, schema, answer = request(rng, True)
        items.append({"messages": messages, "schema": schema, "json": answer})
    return items
