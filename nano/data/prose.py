"""Plain English, grown from sentence patterns: stories, descriptions, and filler for long contexts."""

from data.words import FIRST, fill

OPEN = """One morning {Name} walked to the {place}.
In the {place} lived a {adj} {animal}.
{Name} was a {job} who worked near the {place}.
It was a {adj} day in {city}.
Long ago there was a {adj} {place} at the edge of {city}.
{Name} had always wanted a {colour} {thing}.
Every evening {Name} the {job} sat by the window and drank {food} soup.
The {animal} and the {job} were old friends.
When the bell of the {place} rang, {Name} put down the {thing}.
Nobody in {city} knew where the {adj} {thing} had gone.""".split("\n")
MIDDLE = """There {he} {past} a {adj} {thing}.
The {thing} was {colour} and very {adj}.
"{Say}" asked the {job}.
A {animal} ran across the road and disappeared behind the {place}.
{He} looked at the {thing} for a long time.
The weather was {adj}, so nobody went to the {place}.
Then {Other} came along with a basket of {food}.
They shared some {food} and talked about the {place}.
The {adj} {animal} did not want to leave the {place}.
{He} thought about it and decided to ask {Other}.
"I {past} it yesterday," said {Other}.
Because it was late, {he} went home through the {place2}.
After an hour the {thing} was clean again.
{Other} laughed and gave {him} a {colour} {thing2}.
It cost {n} coins, which was more than {he} had.
The path to the {place2} was {adj} and {adj2}.
On the table there were {n} {colour} cups and a {thing}.
{He} counted the steps: there were {n} of them.
Some people say that the {animal} can be heard at night.
The {job} repaired the {thing} with great care.
First {he} opened the {thing}, then {he} closed it again.
If the {thing} had been smaller, it would have fit in the bag.
Neither the {job} nor the {animal} said a word.
{He} was {adj} but not {adj2}.
Although the {thing} was {adj}, it worked very well.
The letter said that {Other} would arrive on the next train from {city}.""".split("\n")
CLOSE = """In the end {he} was happy and went to sleep.
And so the {thing} stayed in the {place} for many years.
From that day on {Name} and {Other} were friends.
{He} never forgot that day.
The next morning everything was quiet again.
And that is how the {place} got its name.
{Name} smiled, because the {thing} was safe.""".split("\n")
SAY = """What are you doing here?
Have you seen my {thing}?
How far is it to the {place}?
Why is the {animal} so {adj}?
Would you like some {food}?
Who {past} the {thing}?
Can you help me?""".split("\n")
PRONOUNS = (("he", "He", "him"), ("she", "She", "her"))

GENERAL = """The road from {city} to the {place} is about {n} kilometres long.
A {job} needs a good {thing} and a {adj} {thing2}.
In summer the {place} is open from morning to evening.
Most visitors come to {city} because of the {adj} {place}.
{food} and {food2} are sold at the market next to the {place}.
The {animal} is a {adj} animal that likes {food}.
There are {n} houses on the street behind the {place}.
The old {thing} was replaced by a {colour} one in the spring.
People in {city} often take the train to the {place}.
The {job} keeps a {thing} in the cellar.
A {colour} {thing} stands in front of the {place}.
It usually rains for {n} days in that part of the country.
The {place} was built by a {job} from {city}.
Children like to play near the {place} when the weather is {adj}.
The museum shows {n} paintings of a {animal} and a {thing}.
On Sundays the {job} sells {food} in the square.
The bridge next to the {place} is {adj} and rather {adj2}.
You can see the {place} from the top of the tower.
The walls of the house are {colour}, and its door is {adj}.
Every year a {adj} festival takes place in {city}.
The {animal} sleeps most of the day and wakes up at night.
A walk around the {place} takes about {n} minutes.
The shop sells a {thing}, a {thing2} and many other things.
Two rivers meet near {city}, not far from the {place}.
The clock on the {place} has not worked for {n} years.
Some of the {adj} trees are more than {n} years old.
{Name} the {job} wrote a book about the {place}.
The winter was long, and the {animal} stayed close to the {place}.""".split("\n")


def story(rng, length=None):
    he, He, him = rng.choice(PRONOUNS)
    name, other = rng.sample(FIRST, 2)
    shared = {"he": he, "He": He, "him": him, "Name": name, "Other": other}
    lines = [fill(rng, rng.choice(OPEN), **shared)]
    for pattern in rng.sample(MIDDLE, length or rng.randint(3, 9)):
        if "{Say}" in pattern:
            pattern = pattern.replace("{Say}", fill(rng, rng.choice(SAY)))
        lines.append(fill(rng, pattern, **shared))
    lines.append(fill(rng, rng.choice(CLOSE), **shared))
    return " ".join(lines)


def sentence(rng):
    text = fill(rng, rng.choice(GENERAL))
    return text[:1].upper() + text[1:]


def paragraph(rng):
    if rng.random() < 0.4:
        return story(rng, rng.randint(2, 5))
    return " ".join(sentence(rng) for _ in range(rng.randint(3, 7)))


def document(rng):
    return "\n\n".join(paragraph(rng) for _ in range(rng.randint(1, 4)))
