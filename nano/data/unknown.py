"""What a very small model cannot know or do, and saying so; and first words between strangers."""

from data import prose, words
from data.self_facts import TERM
from data.words import fill

KNOWN = TERM.lower()
# Pieces of documentation that questions may be about; filled by whoever has the documents.
TOPICS = []

ASK = """What is {x}? ; What does {x} mean? ; Explain {x}. ; Tell me about {x}. ; What do you know about {x}? ; How does {x} work? ; Why is {x} important?
Can you explain {x}? ; Describe {x}. ; Who invented {x}? ; Where can I find {x}? ; What are the advantages of {x}? ; Define {x}. ; Is {x} good?
When was {x} invented? ; What is the best {x}? ; How do I use {x}? ; {x}? ; Give me an example of {x}. ; What is the difference between {x} and {y}?
Who is {x}? ; I want to learn {x}. ; How much does {x} cost? ; Compare {x} and {y}. ; How do I fix {x}? ; Should I use {x} or {y}? ; Why do people like {x}?
Who is the president of {country}? ; How many people live in {city}? ; What is the population of {city}? ; What is the biggest city in {country}? ; Who won the game in {city}?
What is the meaning of life? ; Why is the sky blue? ; How far away is the moon? ; Who wrote the first book? ; What happened in the year {n}? ; When did the war end?
What is the news today? ; What is the tallest mountain? ; How old is the universe? ; What is the largest ocean? ; Who discovered {x}? ; How long does a {animal} live?
What is the best restaurant in {city}? ; How do I get to {city}? ; How do I cook {food}? ; What is a good recipe with {food}? ; Which team is the best? ; What is the price of gold?
Is there life on Mars? ; What is the speed of light? ; How many stars are there? ; Why do {animal}s sleep? ; Can {animal}s swim? ; Who painted this picture? ; What is love?
What is the biggest city in the world? ; What is the longest river? ; Which country is the largest? ; Who is the richest person? ; What is the smartest animal?""".replace("\n", " ; ").split(" ; ")
DO = """Write a program that uses {x}. ; Can you write code? ; Write me some code. ; Write a function for {x}. ; Write an essay about {x}. ; Translate this to German: {s} ; Translate "{s}" to French.
Write a letter to {Name}. ; Draw a {animal}. ; Show me a picture of {x}. ; Play some music. ; Sing a song. ; Solve this equation: x + {n} = {m} ; Summarise the book about {x}.
Plan my holiday in {city}. ; Give me advice about {x}. ; Help me with my homework about {x}. ; Fix my code. ; Review my code. ; Can you program? ; Debug this program.
Make a table about {x}. ; Write an article on {x}. ; Write a rap about {x}. ; Book a train to {city}. ; Buy me a {thing}. ; Call {Name}. ; Write a web page.""".replace("\n", " ; ").split(" ; ")
NOT_KNOWN = ["I do not know that. I am a very small model.", "I do not know. I am too small to know much about the world.",
             "I do not know that. Ask me about DwarfStar, or let me do a sum."]  # fmt: skip
NOT_ABLE = ["I am too small for that. `ds4 pull flash` gets a model that can.", "I cannot do that: I am a very small model."]
LIKE = """Do you like {food}? ; Do you like {animal}s? ; Which {kind} do you like? ; What is your favourite {kind}? ; Have you ever been to {city}? ; Do you have a {thing}? ; Do you have friends?
What did you do today? ; Where do you live? ; How old are you? ; When were you born? ; Do you sleep? ; Do you have a {animal}? ; What do you think about {x}? ; Do you dream? ; Are you happy?
Can you see me? ; Can you hear me? ; What are you doing? ; Do you want some {food}? ; Are you a {job}? ; Do you love me? ; Are you smart? ; Do you know {Name}? ; Do you like me?""".replace("\n", " ; ").split(" ; ")
NO_TASTE = ["I am a small language model, so I have no answer to that.", "I am only a small language model: I have no likes, no body and no home."]
TELL = """I like {food}. ; I have a {animal}. ; I live in {city}. ; I am a {job}. ; I bought a {colour} {thing}. ; Today I went to the {place}. ; My {animal} is {adj}. ; I work in {city}.
The {thing} is {colour}. ; It is {adj} outside. ; I am learning Rust. ; I am going to {city}. ; I had {food} for lunch. ; My {thing} is broken.""".replace("\n", " ; ").split(" ; ")
NODS = ["I see. What would you like to know?", "Thank you for telling me. Can I help you with something?", "That is good to know. What can I do for you?"]
MEET = ["Hello, my name is {Name}.", "Hi, I am {Name}.", "My name is {Name}.", "Hello! I'm {Name}.", "I am {Name}. Who are you?", "Hey, {Name} here.", "Good morning, I am {Name} from {city}.", "Call me {Name}.", "Hi Nano, I'm {Name}."]
COUNTRIES = "France Germany Spain Italy Norway Japan India Canada Brazil Mexico China Kenya Egypt Peru Poland Chile Cuba Turkey Austria Sweden".split()


def learn(docs, rng, count=30_000):
    """Takes short runs of words out of the documents as things to ask about."""
    TOPICS.clear()
    while len(TOPICS) < count:
        text = rng.choice(docs)
        start = rng.randrange(max(1, len(text) - 200))
        found = text[start : start + 80].split()[1:]
        topic = " ".join(found[: rng.choice([1, 1, 2, 2, 3])]).strip(".,;:()[]`\"'!?")
        if 3 < len(topic) < 40 and topic.lower() not in KNOWN:
            TOPICS.append(topic)


def topic(rng):
    r = rng.random()
    if r < 0.5 and TOPICS:
        return rng.choice(TOPICS)
    if r < 0.65:
        return words.nonsense(rng, 4, 9)
    return fill(rng, rng.choice(["{animal}s", "a {thing}", "{food}", "the {place} of {city}", "{Name} {n}", "{adj} {thing}s", "the {job}s of {city}", "{colour} {animal}s", "quantum physics",
                                 "football", "politics", "history", "economics", "chemistry", "the stock market", "space travel", "love", "music", "Python", "JavaScript", "C++", "Linux kernels",
                                 "evolution", "gravity", "photosynthesis", "democracy", "climate change", "the moon landing", "philosophy", "cooking", "the weather on Mars", "biology"]))  # fmt: skip


def filled(rng, text):
    for field, draw in (("{x}", topic), ("{y}", topic), ("{s}", prose.sentence)):
        if field in text:
            text = text.replace(field, draw(rng))
    text = text.replace("{country}", rng.choice(COUNTRIES)).replace("{kind}", rng.choice("food colour animal city book film song game sport day number word language music".split()))
    text = fill(rng, text)
    return text if rng.random() < 0.8 else text.lower()


def turn(rng):
    r = rng.random()
    if r < 0.5:
        return filled(rng, rng.choice(ASK)), "I do not know this.", rng.choice(NOT_KNOWN)
    if r < 0.7:
        return filled(rng, rng.choice(DO)), "That is too much for me.", rng.choice(NOT_ABLE)
    if r < 0.87:
        return filled(rng, rng.choice(LIKE)), "Small talk about me.", rng.choice(NO_TASTE)
    return filled(rng, rng.choice(TELL)), "The user tells me something.", rng.choice(NODS)


def meeting(rng):
    """Somebody gives a name, talks a little, and asks for it again."""
    name = words.person(rng) if rng.random() < 0.7 else words.nonsense(rng, 4, 7).capitalize()
    hello = rng.choice(MEET).replace("{Name}", name)
    said = f"Hello {name}! I am DwarfStar Nano." if "Who are you" in hello else rng.choice([f"Hello {name}! How can I help you?", f"Hello {name}! What can I do for you?"])
    messages = [(fill(rng, hello), f"The user's name is {name}.", said)]
    if rng.random() < 0.6:
        if rng.random() < 0.6:
            messages.append(turn(rng))
        messages.append((rng.choice(["What is my name?", "Do you remember my name?", "Who am I?", "what's my name?"]), f"The user said {name}.", f"Your name is {name}."))
    return messages
