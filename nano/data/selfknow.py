"""Questions about DwarfStar and its models. Some ways of asking are kept for the test."""

from data.self_facts import ASK, TASK, TERM

TERM_FORMS = """What is {t}?
What does {t} mean?
Explain {t}.
Tell me about {t}.
Can you explain {t}?
Describe {t} briefly.
{t}?
what is {t}
Do you know what {t} is?
Give me a short explanation of {t}.
How would you explain {t} to a beginner?
I do not understand {t}. Can you help?
What do you know about {t}?
Explain {t} please.""".split("\n")
TERM_TEST = ["Please explain {t} in one or two sentences.", "I keep reading about {t}. What is it?"]
TASK_FORMS = """How do I {t}?
How can I {t}?
Which command do I use to {t}?
I want to {t}.
What do I type to {t}?
Show me how to {t}.
how to {t}
Can I {t}?
I would like to {t}. What should I do?
Tell me how to {t}.""".split("\n")
TASK_TEST = ["Is there a way to {t}?", "What is the right command if I need to {t}?"]
BEFORE = ["", "", "", "", "", "Hi! ", "Hello. ", "Quick question: ", "One more thing. ", "Hey, ", "Sorry, another question. "]


def _facts(text, kind):
    for line in text.strip().split("\n"):
        names, answer, keys = (part.strip() for part in line.split("|"))
        names = [n.strip() for n in names.split(" ; ")]
        yield kind, names, answer, [k.strip() for k in keys.split(",")]


FACTS = [*_facts(TERM, "term"), *_facts(TASK, "task"), *_facts(ASK, "ask")]


def questions(fact, test):
    kind, names, _, _ = fact
    if kind == "ask":
        return names[-1:] if test else names[:-1]
    forms = {"term": (TERM_FORMS, TERM_TEST), "task": (TASK_FORMS, TASK_TEST)}[kind][test]
    return [form.replace("{t}", name) for form in forms for name in names]


def think(rng, kind, answer):
    about = {
        "term": ["This asks what a term means.", "I should explain this term.", "A question about the model."],
        "task": ["The user wants a command.", "I know the command for this.", "A question about using ds4."],
        "ask": ["This is a question about me or DwarfStar.", "I know this.", "A question about the project."],
    }[kind]
    return rng.choice(about)


def turn(rng, test=False):
    fact = rng.choice(FACTS)
    kind, _, answer, keys = fact
    question = rng.choice(questions(fact, test))
    if not test:
        question = rng.choice(BEFORE) + question
    return question, think(rng, kind, answer), answer, keys


def sample(rng):
    messages = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        question, reasoning, answer, _ = turn(rng)
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer, "reasoning": reasoning})
    return {"messages": messages}


def test_items(rng, count):
    items = []
    for fact in FACTS:
        asked = questions(fact, True)
        for question in rng.sample(asked, min(2, len(asked))):
            items.append({"messages": [{"role": "user", "content": question}], "contains": fact[3]})
    rng.shuffle(items)
    return items[:count]
