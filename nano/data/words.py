"""Pools of plain words, and how the generators draw from them."""

FIRST = """Anna Ben Clara David Elena Felix Grace Henry Iris Jonas Kira Leo Maria Nils Olga Paul Rosa Simon
Tara Viktor Wendy Yusuf Zoe Adam Bella Carl Dina Emil Fiona George Hanna Igor Julia Karim Lina Max Nora Oscar
Petra Quentin Rita Stefan Tina Ulrich Vera Walter Yara Zack Alice Boris Celia Dario Edith Frank Gina Hugo Ines
Jakob Kate Lars Mona Noah Otto Pia Ralf Sara Tom Ursula Vince Willa Amir Bruno Cora Dora Erik Flora Gustav
Helga Ivan Jana Klaus Lucy Marco Nina Omar Paula Rolf Silke Theo Uma Vito Wilma Aldo Bert Cleo Dean Ella""".split()
CITY = """Paris Berlin Madrid Rome Vienna Oslo Lisbon Athens Dublin Prague Warsaw Budapest Helsinki Stockholm
Copenhagen Brussels Bern Tokyo Cairo Nairobi Lima Quito Delhi Hanoi Seoul Ottawa Boston Denver Austin Chicago
Turin Porto Lyon Basel Graz Bergen Malaga Zagreb Riga Tallinn Vilnius Sofia""".split()
COLOUR = "red blue green yellow black white orange purple brown grey pink silver golden".split()
ANIMAL = """cat dog horse cow sheep goat fox wolf bear deer rabbit mouse owl eagle crow duck goose swan frog
turtle whale dolphin seal otter beaver hedgehog squirrel badger lynx falcon heron""".split()
THING = """lamp chair table book clock bottle basket ladder hammer window door bridge boat train wagon bicycle
kite drum violin piano mirror candle blanket pillow coat scarf hat glove boot key box bag rope bell coin map
letter pen pencil brush bucket spoon fork knife plate cup kettle oven garden fence gate bench tower""".split()
FOOD = """bread cheese apple pear plum cherry orange lemon carrot potato onion tomato soup rice pasta cake honey
butter milk tea coffee juice salad egg bean pea nut grape melon pepper garlic""".split()
JOB = """baker teacher doctor farmer painter driver gardener nurse engineer pilot sailor carpenter tailor cook
writer singer dancer plumber lawyer librarian blacksmith shepherd fisherman clockmaker mechanic""".split()
PLACE = """library market station harbour forest village river mountain school kitchen garden workshop museum
castle park island valley lighthouse mill farm bakery church square theatre cellar attic meadow lake""".split()
ADJECTIVE = """small large old young quiet loud warm cold bright dark heavy light slow fast gentle brave clever
kind tired happy sad careful lazy strong weak rich poor clean dusty wet dry soft hard narrow wide deep round""".split()
VERB_PAST = """found lost bought sold painted carried repaired opened closed dropped hid washed moved borrowed
returned cleaned admired kept broke measured wrapped lifted pushed pulled watched""".split()
STEM = """main config utils notes report data index server client parser lexer model train eval build readme
changelog todo settings users orders invoice budget schedule summary draft backup cache session tokens weights
router kernel driver network storage sensor metrics plan budget recipe letter menu inventory results scores
weather map log errors input output test setup install license script helper worker queue buffer""".split()
EXT = "txt md rs py toml json csv log yaml c h sh html js cfg ini".split()
FOLDER = """src docs tests data logs scripts config lib bin assets examples home tmp backup reports crates tools
models notes project build include web archive""".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def nonsense(rng, low=3, high=8):
    """A word nobody knows: what is copied must not depend on having been seen."""
    out, vowel = "", rng.random() < 0.5
    for _ in range(rng.randint(low, high)):
        out += rng.choice("aeiou" if vowel else "bcdfghjklmnprstvwz")
        vowel = not vowel if rng.random() < 0.85 else vowel
    return out


def stem(rng):
    r = rng.random()
    if r < 0.55:
        return rng.choice(STEM)
    if r < 0.75:
        return f"{rng.choice(STEM)}_{rng.choice(STEM)}"
    if r < 0.9:
        return nonsense(rng)
    return f"{rng.choice(STEM)}{rng.randint(1, 99)}"


def filename(rng):
    return f"{stem(rng)}.{rng.choice(EXT)}"


def folder(rng):
    name = rng.choice(FOLDER) if rng.random() < 0.8 else nonsense(rng)
    return f"{name}/{stem(rng)}" if rng.random() < 0.2 else name


def path(rng):
    r = rng.random()
    name = filename(rng)
    if r < 0.45:
        return name
    if r < 0.85:
        return f"{folder(rng)}/{name}"
    if r < 0.93:
        return f"/{rng.choice(FOLDER)}/{folder(rng)}/{name}"
    return f"./{name}"


def person(rng):
    return rng.choice(FIRST)


def fill(rng, text, **extra):
    """Replaces {Name}, {city}, ... by draws; the same field twice is the same word."""
    pools = {
        "Name": FIRST, "Other": FIRST, "city": CITY, "colour": COLOUR, "animal": ANIMAL, "thing": THING,
        "thing2": THING, "food": FOOD, "job": JOB, "place": PLACE, "place2": PLACE, "adj": ADJECTIVE,
        "adj2": ADJECTIVE, "past": VERB_PAST, "food2": FOOD,
    }  # fmt: skip
    values = dict(extra)
    for field, pool in pools.items():
        if "{" + field + "}" in text and field not in values:
            values[field] = rng.choice(pool)
    for field in ("n", "m"):
        if "{" + field + "}" in text and field not in values:
            values[field] = rng.randint(2, 99)
    for field, value in values.items():
        text = text.replace("{" + field + "}", str(value))
    return text
