"""Questions about DwarfStar and its models. Some ways of asking are kept for the test."""

from data.self_facts import ASK, TASK, TERM

TERM_FORMS = """What is {t}?
What does {t} mean?
Explain {t}.
Tell me about {t}.
{t}?
what is {t}
Do you know what {t} is?
Give me a short explanation of {t}.
I do not understand {t}. Can you help?
What do you know about {t}?
What is meant by {t}?
What is the meaning of {t}?
What is {t} good for?
Is {t} something I should know?
Can you help me understand {t}?
I have a question about {t}.
What can you tell me about {t}?
Why does everybody talk about {t}?
What exactly is {t}?
So what is {t}?
And {t}?
Define {t}.
define {t}
{t}, what is that?
What would you say {t} is?""".split("\n")
# Orders and remarks are put together from parts, so that no single wording is learnt by heart.
ORDER = ["", "Please ", "Could you ", "Can you ", "Can you please ", "Would you ", "I want you to ", "You should ", "Now ", "Kindly ", "I would like you to ", "Let us "]
VERB = ["explain", "describe", "define", "tell me about", "say something about", "summarise", "introduce", "clarify", "write about", "teach me about", "give a definition of"]
TAIL = ["", "", "", " to me", " briefly", " in simple words", " in one sentence", " in a few words", " to a beginner", " in short", " in two sentences",
        " for me", " in plain English", " quickly", " in one line", " with few words", " in one paragraph", " again"]  # fmt: skip
HEARD = ["I read about", "Somebody mentioned", "I saw", "I just heard of", "People talk about", "The README mentions", "My colleague asked about",
         "I am reading about", "I often hear about", "There is a page about", "I found the term", "The paper is about", "I stumbled upon", "I always see",
         "The documentation speaks of", "I am curious about", "I was reading on", "We talked about", "I keep hearing of", "Everyone mentions"]  # fmt: skip
FOLLOW = [". What is it?", ". What is that?", ". What does it do?", ". Can you explain?", ". What is meant by that?", ". Tell me more.", ". Help me understand it.",
          ", what is it?", ". Explain it.", ". What does that mean?", ". Any idea what it is?", " and want to know what it is.", ". Please explain.", "."]  # fmt: skip
TERM_TEST = ["Please explain {t} in one or two sentences.", "I keep reading about {t}. What is it?", "Would you mind explaining {t}?",
             "Someone asked me what {t} is, and I had no answer."]  # fmt: skip
TASK_FORMS = """How do I {t}?
How can I {t}?
Which command do I use to {t}?
I want to {t}.
What do I type to {t}?
Show me how to {t}.
how to {t}
Can I {t}?
I would like to {t}. What should I do?
Tell me how to {t}.
Is it possible to {t}?
Can you tell me how to {t}?
What is the command to {t}?
Is there a command to {t}?
What command should I use if I want to {t}?
I need to {t}. What do I do?
Help me {t}.
What is the best way to {t}?
Please show me how to {t}.
I have to {t}, but I do not know how.
Does ds4 let me {t}?
What should I do to {t}?
With ds4, how do I {t}?
I am trying to {t}. Which command is it?
What must I enter to {t}?
Which flag or command do I need to {t}?
Is there an option to {t}?
In which way can I {t}?
Do you know how to {t}?
The right way to {t}?""".split("\n")
TASK_TEST = ["Is there a way to {t}?", "What is the right command if I need to {t}?", "What would I have to enter in order to {t}?",
             "Which of the commands lets me {t}?"]  # fmt: skip
BEFORE = ["", "", "", "", "", "Hi! ", "Hello. ", "Quick question: ", "One more thing. ", "Hey, ", "Sorry, another question. ",
          "I wonder: ", "Tell me: ", "Nano, ", "Hey Nano, ", "Next question. ", "Please tell me: ", "OK. ", "Now tell me: "]  # fmt: skip


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


def asked(rng, fact):
    """A training question about a fact: a listed form, or one put together."""
    kind, names, _, _ = fact
    question = rng.choice(questions(fact, False))
    if kind == "term" and rng.random() < 0.6:
        name = rng.choice(names)
        if rng.random() < 0.5:
            question = f"{rng.choice(ORDER)}{rng.choice(VERB)} {name}{rng.choice(TAIL)}"
            question = question[:1].upper() + question[1:] + ("?" if question.startswith(("Could", "Can", "Would")) else ".")
        else:
            question = f"{rng.choice(HEARD)} {name}{rng.choice(FOLLOW)}"
    question = rng.choice(BEFORE) + question
    r = rng.random()
    if r < 0.08:
        question = question.lower()
    elif r < 0.14:
        question = question.rstrip("?.")
    elif r < 0.2 and question.endswith("?"):
        question = question[:-1] + rng.choice([", please?", " exactly?", " again?", " then?", " in ds4?", "??"])
    return question


def turn(rng, test=False):
    fact = rng.choice(FACTS)
    kind, _, answer, keys = fact
    question = rng.choice(questions(fact, True)) if test else asked(rng, fact)
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
