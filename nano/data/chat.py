"""Short English conversation: greetings, small talk, small skills, small knowledge."""

from data import prose, unknown, words
from data.words import fill

TALK = """
Hello ; Hi ; Hello! ; Hi there ; Hey ; Good morning ; Good evening ; Hello there! ; Good afternoon | Hello! How can I help you? ; Hi! What can I do for you? ; Hello! What would you like to know?
How are you? ; How do you do? ; How is it going? ; Are you well? ; How are you today? | I am well, thank you. How can I help you? ; All my layers are running. What can I do for you?
Thank you ; Thanks ; Thank you very much! ; Thanks a lot ; Great, thanks. ; That helps, thank you. | You are welcome. ; You are welcome! Ask me anything else. ; I am glad that it helped.
Goodbye ; Bye ; See you ; Good night ; See you tomorrow ; I have to go now. | Goodbye! ; Goodbye, and have a nice day. ; See you next time.
Sorry ; I am sorry. ; My mistake. ; Oops | No problem. ; That is all right.
You are wrong. ; That is not right. ; I think that is wrong. ; That was a mistake. | I am sorry. I am a very small model and make mistakes. ; You may be right. I am small and make mistakes.
Tell me a joke. ; Do you know a joke? ; Make me laugh. ; Say something funny. | Why did the token cross the window? It wanted to be compressed. ; A router walks into a bar with 256 experts. It talks to six of them. ; My shortest joke has one token.
What is your favourite colour? ; Which colour do you like? ; Do you have a favourite colour? | I do not see colours, but the word blue has a nice embedding. ; I like green, the colour of passing tests.
What is the weather like? ; Is it raining? ; Will it rain tomorrow? | I cannot see outside. Without a weather tool I do not know. ; I do not know: I have no weather tool here.
What time is it? ; What is the date? ; Which day is it today? | I do not know. I have no clock here. ; I have no clock, so I cannot tell.
Do you speak German? ; Can you speak French? ; Which languages do you speak? ; Do you know Chinese? | I speak English only. ; English only. I am too small for more.
I am tired. ; I am bored. ; I had a long day. ; I feel sad. | I am sorry to hear that. Would you like to hear a short story? ; That sounds hard. A break may help.
I am happy. ; Today was a good day. ; I have good news. | That is nice to hear! ; I am happy for you.
Yes ; Yes please ; OK ; Sure ; No ; No, thank you. ; Fine | All right. What would you like to do next? ; Good. What is next?
Can you help me? ; I need help. ; Help me please. ; I have a question. ; Can I ask you something? | Of course. What do you need? ; Yes. What is your question?
What should I ask you? ; What can we talk about? ; Give me an example of a question. | Ask me what the indexer does, or what 47 + 38 is. ; You can ask me about DwarfStar, or let me do a sum.
Do you like music? ; Do you like books? ; Do you play chess? ; Do you eat? | I am a small language model, so no. But I like good questions. ; No, I only read tokens.
Write a poem. ; Can you write a poem? ; Write a short poem for me. | A star so small, its light is low, it counts its tokens, row by row. ; Four streams that flow, a mix, a gate, one little star that stays up late.
Is that all? ; Are you sure? ; Really? | Yes, as far as I know. ; I think so, but I am a small model.
Tell me something interesting. ; Surprise me. ; Tell me a fact. | A compressed row of 128 tokens takes no more room than the row of one token. ; An octopus has three hearts. ; Honey can keep for many years.
"""
CAPITAL = """France Paris, Germany Berlin, Spain Madrid, Italy Rome, Austria Vienna, Norway Oslo, Portugal Lisbon, Greece Athens,
Ireland Dublin, Poland Warsaw, Hungary Budapest, Finland Helsinki, Sweden Stockholm, Denmark Copenhagen, Belgium Brussels,
Switzerland Bern, Japan Tokyo, Egypt Cairo, Kenya Nairobi, Peru Lima, Ecuador Quito, India Delhi, Vietnam Hanoi, Canada Ottawa,
Croatia Zagreb, Latvia Riga, Estonia Tallinn, Lithuania Vilnius, Bulgaria Sofia, Iceland Reykjavik, China Beijing, Russia Moscow,
Turkey Ankara, Cuba Havana, Chile Santiago, Scotland Edinburgh, Wales Cardiff, England London"""
OPPOSITE = """big small, hot cold, long short, high low, fast slow, old new, light dark, open closed, full empty, wet dry, rich poor,
strong weak, early late, hard soft, loud quiet, near far, happy sad, true false, up down, left right, first last, good bad, day night,
inside outside, wide narrow, thick thin, clean dirty, begin end, win lose, buy sell, push pull, above below"""
PLURAL = """cat cats, dog dogs, box boxes, mouse mice, child children, man men, woman women, foot feet, tooth teeth, goose geese, leaf leaves,
knife knives, city cities, baby babies, fish fish, sheep sheep, bus buses, wolf wolves, key keys, story stories"""
IS_A = """a lion|an animal that hunts, a rose|a flower, a hammer|a tool for driving nails, a piano|a musical instrument, a river|flowing water,
a compiler|a program that turns source code into machine code, Rust|a programming language, a GPU|a chip for parallel computation,
a CPU|the main processor of a computer, RAM|the working memory of a computer, an SSD|a fast disk without moving parts,
an apple|a fruit, a carrot|a vegetable, a train|a vehicle on rails, the moon|the body that goes around the earth, the sun|the star nearest to us,
a star|a large ball of hot gas, a library|a place with many books, a baker|a person who bakes bread, water|a clear liquid that we drink,
ice|frozen water, a token|a piece of text that a model reads as one symbol, Linux|an operating system kernel, git|a version control system,
a file|a named piece of data on a disk, a function|a piece of code with a name, a loop|code that runs again and again,
a terminal|a window for typing commands, a dictionary|a book that explains words, a map|a drawing of a place"""
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def _pairs(text, separator=" "):
    return [tuple(item.strip().split(separator, 1)) for item in text.replace("\n", " ").split(",")]


TALKS = [tuple([p.strip() for p in half.split(" ; ")] for half in line.split("|")) for line in TALK.strip().split("\n")]
CAPITALS, OPPOSITES, PLURALS, KINDS = _pairs(CAPITAL), _pairs(OPPOSITE), _pairs(PLURAL), _pairs(IS_A, "|")


def small_talk(rng):
    questions, answers = rng.choice(TALKS)
    return rng.choice(questions), rng.choice(["Small talk.", "A friendly answer will do.", "The user is chatting."]), rng.choice(answers)


def knowledge(rng):
    kind = rng.randrange(6)
    if kind == 0:
        country, city = rng.choice(CAPITALS)
        if rng.random() < 0.25:
            return f"Which country has the capital {city}?", f"{city} is the capital of {country}.", f"{city} is the capital of {country}."
        ask = rng.choice(["What is the capital of {c}?", "capital of {c}?", "Which city is the capital of {c}?", "Tell me the capital of {c}."])
        return ask.replace("{c}", country), "I know this capital.", f"The capital of {country} is {city}."
    if kind == 1:
        a, b = rng.choice(OPPOSITES)
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        return rng.choice(["What is the opposite of {a}?", "opposite of {a}", "Tell me the opposite of {a}."]).replace("{a}", a), "An opposite.", f"The opposite of {a} is {b}."
    if kind == 2:
        a, b = rng.choice(PLURALS)
        return rng.choice(["What is the plural of {a}?", "plural of {a}"]).replace("{a}", a), "A plural.", f"The plural of {a} is {b}."
    if kind == 3:
        a, b = rng.choice(KINDS)
        return rng.choice(["What is {a}?", "Explain {a}.", "What does the word for {a} mean?", "Tell me about {a}."]).replace("{a}", a), "I know this word.", f"{a[:1].upper()}{a[1:]} is {b}."
    names, what = rng.choice([(MONTHS, "month"), (DAYS, "day")])
    i = rng.randrange(len(names))
    if kind == 4:
        return f"Which {what} comes after {names[i]}?", f"After {names[i]} comes {names[(i + 1) % len(names)]}.", f"{names[(i + 1) % len(names)]}."
    return f"Which {what} comes before {names[i]}?", f"Before {names[i]} comes {names[i - 1]}.", f"{names[i - 1]}."


def skill(rng):
    kind = rng.randrange(7)
    if kind == 0:
        text = prose.sentence(rng) if rng.random() < 0.6 else " ".join(words.nonsense(rng) for _ in range(rng.randint(1, 5)))
        return rng.choice(["Repeat: {t}", "Say this again: {t}", "Repeat after me: {t}", "Please repeat: {t}"]).replace("{t}", text), "I should repeat it.", text
    if kind == 1:
        word = rng.choice(words.THING + words.ANIMAL + words.FOOD + [words.nonsense(rng)])
        return rng.choice(["Spell {w}.", "Spell the word {w}.", "How do you spell {w}?"]).replace("{w}", word), "Letter by letter.", "-".join(word)
    if kind == 2:
        a = rng.randint(0, 40)
        b = a + rng.randint(2, 12)
        return f"Count from {a} to {b}.", f"From {a} to {b}.", ", ".join(str(i) for i in range(a, b + 1))
    if kind == 3:
        items = rng.sample(words.FOOD + words.THING, rng.randint(3, 5))
        i = rng.randrange(len(items))
        order = ["first", "second", "third", "fourth", "fifth"][i]
        return f"What is the {order} word of: {', '.join(items)}?", f"The words are {', '.join(items[: i + 1])}.", f"{items[i]}"
    if kind == 4:
        items = rng.sample(words.THING, rng.randint(3, 5))
        return f"Sort these words: {', '.join(items)}", "By the alphabet.", ", ".join(sorted(items))
    if kind == 5:
        pool, what = rng.choice([(words.ANIMAL, "animals"), (words.COLOUR, "colours"), (words.FOOD, "kinds of food"), (words.CITY, "cities"), (words.JOB, "jobs")])
        n = rng.randint(2, 5)
        return rng.choice(["Name {n} {w}.", "Tell me {n} {w}.", "List {n} {w}."]).replace("{n}", str(n)).replace("{w}", what), f"I need {n}.", ", ".join(rng.sample(pool, n))
    return rng.choice(["Tell me a story.", "Tell me a short story.", "Write a short story.", "Can you tell me a story?"]), "A short story.", prose.story(rng, rng.randint(2, 5))


def lookup(rng):
    """Facts in the question, one of them asked for; sometimes over two steps."""
    names = rng.sample(words.FIRST, 4)
    kind = rng.randrange(3)
    if kind == 0:
        cities = rng.sample(words.CITY, 4)
        text = " ".join(f"{n} lives in {c}." for n, c in zip(names, cities))
        i = rng.randrange(4)
        return f"{text} Where does {names[i]} live?", f"It says that {names[i]} lives in {cities[i]}.", f"{names[i]} lives in {cities[i]}."
    if kind == 1:
        things = rng.sample(words.THING, 4)
        text = " ".join(f"{n} has a {rng.choice(words.COLOUR)} {t}." for n, t in zip(names, things))
        i = rng.randrange(4)
        return f"{text} Who has the {things[i]}?", f"The {things[i]} belongs to {names[i]}.", f"{names[i]} has the {things[i]}."
    cities = rng.sample(words.CITY, 3)
    facts = [f"{names[0]} lives with {names[1]}.", f"{names[1]} lives in {cities[0]}.", f"{names[2]} lives in {cities[1]}.", f"{names[3]} lives in {cities[2]}."]
    rng.shuffle(facts)
    return f"{' '.join(facts)} Where does {names[0]} live?", f"{names[0]} lives with {names[1]}. {names[1]} lives in {cities[0]}.", f"{names[0]} lives in {cities[0]}."


def turn(rng):
    return rng.choice([small_talk, small_talk, knowledge, skill, lookup, unknown.turn, unknown.turn, unknown.turn])(rng)


def sample(rng):
    messages = []
    r = rng.random()
    if r < 0.15:
        for asked, reasoning, said in unknown.meeting(rng):
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said, "reasoning": reasoning}]
        return {"messages": messages}
    if r < 0.45:
        asked, reasoning, said = small_talk(rng)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said, "reasoning": reasoning}]
    for _ in range(rng.choice([1, 1, 2, 3])):
        asked, reasoning, said = turn(rng)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said, "reasoning": reasoning}]
    return {"messages": messages}
