"""Conversations with tools: one call, several at once, several in turn, their results, refusals.

Every task is a script: what the user asks, then rounds of (reasoning, calls, results), then the last
answer. The same script makes a training conversation and a graded test item.
"""

import zlib

from data import arithmetic, words
from data.toolbox import KINDS, toolbox
from data.words import fill


def held_out(key):
    return zlib.crc32(key.encode()) % 12 == 0


class Script:
    def __init__(self, ask, needed, key):
        self.ask, self.needed, self.key = ask, needed, key
        self.rounds = []  # (reasoning, [(kind, arguments)], [result])
        self.last = ""
        self.contains = []

    def step(self, reasoning, calls, results):
        self.rounds.append((reasoning, calls, results))
        return self

    def end(self, reasoning, answer, *contains):
        self.final_reasoning, self.last, self.contains = reasoning, answer, [str(c) for c in contains]
        return self


def expression(rng):
    ops = rng.choice([1, 1, 2])
    parts = [str(rng.randint(2, rng.choice([99, 999, 9999])))]
    for _ in range(ops):
        parts += [rng.choice("+-*/" if ops == 1 else "+-*"), str(rng.randint(2, rng.choice([99, 999])))]
    text = " ".join(parts)
    if ops == 2 and rng.random() < 0.4:
        text = f"({' '.join(parts[:3])}) {' '.join(parts[3:])}"
    value = eval(text)
    return text, str(int(value)) if value == int(value) else f"{value:.4f}".rstrip("0")


def line(rng):
    return fill(rng, rng.choice([
        "The {thing} is {colour}.", "{Name} likes {food}.", "Buy {food} and {food2}.", "Meet {Name} at the {place}.",
        "The {adj} {animal} sleeps.", "Call {Name} about the {thing}.", "total: {n}", "hello {Name}", "port = {n}",
    ]))  # fmt: skip


def listing(rng):
    return "\n".join(dict.fromkeys(words.filename(rng) for _ in range(rng.randint(2, 6))))


# ---------------------------------------------------------------- one call


def read_one(rng):
    p, text = words.path(rng), line(rng)
    ask = rng.choice([
        "Read {p}.", "What is in {p}?", "Show me {p}.", "Open {p} please.", "What does {p} say?", "Please read the file {p}.",
        "Can you show me the content of {p}?", "cat {p}", "I need to see {p}.", "Tell me what is in the file {p}.",
    ]).replace("{p}", p)  # fmt: skip
    s = Script(ask, ["read"], p)
    s.step(rng.choice([f"I should read {p}.", f"The user wants to see {p}.", "I need the file."]), [("read", {"path": p})], [text])
    return s.end("I have the content.", f"{p} says: {text}", text)


def write_one(rng):
    p, text = words.path(rng), line(rng)
    ask = rng.choice([
        'Write "{t}" to {p}.', "Create {p} with the text: {t}", 'Save "{t}" in {p}.', 'Make a file {p} that says "{t}"',
        "Please write the following to {p}: {t}", "Put this into {p}: {t}",
    ]).replace("{p}", p).replace("{t}", text)  # fmt: skip
    s = Script(ask, ["write"], p)
    s.step(rng.choice([f"I should write {p}.", "The user wants a file."]), [("write", {"path": p, "content": text})], [rng.choice(["ok", "done", f"wrote {len(text)} bytes"])])
    return s.end("It is written.", f"I wrote {p}.", p)


def edit_one(rng):
    p = words.path(rng)
    old, new = rng.choice([(rng.choice(words.THING), rng.choice(words.THING)), (words.nonsense(rng), words.nonsense(rng)), (str(rng.randint(1, 999)), str(rng.randint(1, 999)))])
    ask = rng.choice([
        "Replace {o} with {n} in {p}.", "In {p}, change {o} to {n}.", "Change {o} to {n} in the file {p}.",
        "Please edit {p}: replace {o} by {n}.", "Rename {o} to {n} in {p}",
    ]).replace("{p}", p).replace("{o}", old).replace("{n}", new)  # fmt: skip
    s = Script(ask, ["edit"], p)
    s.step(rng.choice([f"I should edit {p}.", "This is one replacement."]), [("edit", {"path": p, "old": old, "new": new})], [rng.choice(["ok", "1 replacement", "done"])])
    return s.end("The edit worked.", f"I replaced {old} with {new} in {p}.", new)


def list_one(rng):
    p, names = words.folder(rng), listing(rng)
    ask = rng.choice([
        "List the files in {p}.", "What files are in {p}?", "What is in the folder {p}?", "Show me the directory {p}.",
        "ls {p}", "Which files does {p} contain?", "Please list {p}.",
    ]).replace("{p}", p)  # fmt: skip
    s = Script(ask, ["list"], p)
    s.step(rng.choice([f"I should list {p}.", "I need the listing."]), [("list", {"path": p})], [names])
    return s.end("I have the names.", f"The files are: {', '.join(names.split())}.", names.split()[0])


def command(rng):
    p, d = words.path(rng), words.folder(rng)
    return rng.choice([
        "cargo test", "cargo build --release", "git status", "git log -n " + str(rng.randint(1, 20)), "make", "make test",
        f"wc -l {p}", f"rm {p}", f"mkdir {d}", f"python3 {p}", f"cp {p} {words.path(rng)}", f"head -n {rng.randint(1, 50)} {p}",
        "df -h", "uname -a", "whoami", f"du -sh {d}", f"touch {p}", f"chmod +x {p}", f"echo {words.nonsense(rng)}", f"sort {p}",
    ])  # fmt: skip


def shell_one(rng):
    c = command(rng)
    ask = rng.choice([
        "Run `{c}`.", "Please run {c}", "Execute `{c}` for me.", "Run the command {c}", "Can you run `{c}`?", "Use the shell to run `{c}`.",
        "What does `{c}` print?",
    ]).replace("{c}", c)  # fmt: skip
    out = rng.choice(["ok", "done", f"{rng.randint(1, 999)} tests passed", line(rng), f"{rng.randint(1, 99)} errors", words.nonsense(rng)])
    s = Script(ask, ["shell"], c)
    s.step(rng.choice([f"I should run {c}.", "A shell command."]), [("shell", {"command": c})], [out])
    return s.end("I have the output.", f"The output is: {out}", out)


def calc_one(rng):
    e, value = expression(rng)
    ask = rng.choice([
        "What is {e}?", "Compute {e}.", "Calculate {e} with the calculator.", "{e}", "Use the calculator: {e}", "How much is {e}?",
        "Please evaluate {e}.",
    ]).replace("{e}", e)  # fmt: skip
    s = Script(ask, ["calc"], e)
    s.step(rng.choice(["The calculator gives the exact value.", "I should use the calculator."]), [("calc", {"expression": e})], [value])
    return s.end("I have the value.", f"{e} = {value}", value)


TOPIC = ["{adj} {animal}s", "the history of {city}", "how to cook {food}", "the price of a {thing}", "{city} {place}",
         "best {thing} for a {job}", "who invented the {thing}", "{food} recipe", "train from {city} to Oslo",
         "the {animal} in winter", "jobs for a {job} in {city}", "rust lifetimes", "DeepSeek V4", "{Name} the {job}"]  # fmt: skip


def search_one(rng):
    q, found = fill(rng, rng.choice(TOPIC)), line(rng)
    ask = rng.choice([
        "Search for {q}.", "Look up {q}.", "Search the web for {q}.", "Find information about {q} on the web.", "Google {q}",
        "Please search the internet for {q}.", "Can you look up {q} online?",
    ]).replace("{q}", q)  # fmt: skip
    s = Script(ask, ["search"], q)
    s.step(rng.choice(["I should search the web.", f"A search for {q}."]), [("search", {"query": q})], [found])
    return s.end("I have a result.", f"I found this: {found}", found)


def grep_one(rng):
    t, d = rng.choice([words.nonsense(rng), rng.choice(words.THING), "fn " + words.nonsense(rng), rng.choice(words.STEM)]), words.folder(rng)
    hit = f"{d}/{words.filename(rng)}:{rng.randint(1, 400)}"
    ask = rng.choice([
        'Find "{t}" in {d}.', "Which files in {d} contain {t}?", "Search the files in {d} for {t}.", "Where in {d} does {t} occur?",
        "grep for {t} in {d}",
    ]).replace("{t}", t).replace("{d}", d)  # fmt: skip
    s = Script(ask, ["grep"], t + d)
    s.step(rng.choice([f"I should look for {t} in {d}.", "A text search."]), [("grep", {"pattern": t, "path": d})], [f"{hit}: {t}"])
    return s.end("There is a match.", f"I found it in {hit}.", hit)


def weather_one(rng):
    c = rng.choice(words.CITY)
    w = f"{rng.choice(['sunny', 'cloudy', 'rain', 'snow', 'windy', 'fog'])}, {rng.randint(-10, 35)} degrees"
    ask = rng.choice(["What is the weather in {c}?", "How is the weather in {c}?", "Weather in {c} please.", "Is it warm in {c}?", "Does it rain in {c}?"]).replace("{c}", c)
    s = Script(ask, ["weather"], ask)
    s.step(f"I should get the weather of {c}.", [("weather", {"city": c})], [w])
    return s.end("I have the weather.", f"The weather in {c}: {w}.", w)


def time_one(rng):
    c, t = rng.choice(words.CITY), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    ask = rng.choice(["What time is it in {c}?", "Tell me the time in {c}.", "How late is it in {c}?", "current time in {c}"]).replace("{c}", c)
    s = Script(ask, ["time"], ask)
    s.step(f"I should get the time in {c}.", [("time", {"city": c})], [t])
    return s.end("I have the time.", f"It is {t} in {c}.", t)


def mail_one(rng):
    to = f"{words.person(rng).lower()}@{words.nonsense(rng)}.com"
    subject, body = rng.choice(words.STEM), line(rng)
    ask = rng.choice(['Send an e-mail to {to} with the subject "{s}": {b}', 'Mail {to}, subject "{s}", and say: {b}']).replace("{to}", to).replace("{s}", subject).replace("{b}", body)
    s = Script(ask, ["mail"], to)
    s.step("I should send the e-mail.", [("mail", {"to": to, "subject": subject, "body": body})], [rng.choice(["sent", "ok"])])
    return s.end("It is sent.", f"I sent the e-mail to {to}.", to)


def timer_one(rng):
    n = rng.randint(1, 180)
    ask = rng.choice(["Set a timer for {n} minutes.", "Start a timer of {n} minutes.", "Timer: {n} minutes", "Remind me in {n} minutes."]).replace("{n}", str(n))
    s = Script(ask, ["timer"], ask)
    s.step(f"A timer of {n} minutes.", [("timer", {"minutes": n})], ["ok"])
    return s.end("The timer runs.", f"The timer is set for {n} minutes.", n)


def light_one(rng):
    room, on = rng.choice("kitchen bathroom bedroom cellar attic hall office garage garden living_room".split()), rng.random() < 0.5
    ask = rng.choice(["Turn {w} the light in the {r}.", "Switch the {r} light {w}.", "Light {w} in the {r} please."]).replace("{w}", "on" if on else "off").replace("{r}", room)
    s = Script(ask, ["light"], ask)
    s.step("I should switch the light.", [("light", {"room": room, "on": on})], ["ok"])
    return s.end("Done.", f"The light in the {room} is {'on' if on else 'off'}.", room)


def note_one(rng):
    t = line(rng)
    ask = rng.choice(["Remember this: {t}", "Make a note: {t}", "Note that: {t}", "Add a note that says: {t}"]).replace("{t}", t)
    s = Script(ask, ["note"], t)
    s.step("I should save the note.", [("note", {"text": t})], [rng.choice(["ok", "saved"])])
    return s.end("It is saved.", "I saved the note.", "note")


# ---------------------------------------------------------------- several at once


def read_two(rng):
    a, b = words.path(rng), words.path(rng)
    x, y = line(rng), line(rng)
    ask = rng.choice(["Read {a} and {b}.", "What is in {a} and in {b}?", "Show me both {a} and {b}.", "Open the files {a} and {b}."]).replace("{a}", a).replace("{b}", b)
    s = Script(ask, ["read"], a + b)
    s.step("I need both files.", [("read", {"path": a}), ("read", {"path": b})], [x, y])
    return s.end("I have both.", f"{a} says: {x}\n{b} says: {y}", x, y)


def weather_two(rng):
    a, b = rng.sample(words.CITY, 2)
    x, y = (f"{rng.choice(['sunny', 'cloudy', 'rain', 'snow'])}, {rng.randint(-10, 35)} degrees" for _ in range(2))
    ask = rng.choice(["What is the weather in {a} and in {b}?", "Compare the weather of {a} and {b}.", "Weather in {a} and {b}?"]).replace("{a}", a).replace("{b}", b)
    s = Script(ask, ["weather"], ask)
    s.step("I need the weather of two cities.", [("weather", {"city": a}), ("weather", {"city": b})], [x, y])
    return s.end("I have both.", f"{a}: {x}. {b}: {y}.", x, y)


def calc_two(rng):
    (a, x), (b, y) = expression(rng), expression(rng)
    ask = rng.choice(["Compute {a} and {b}.", "What are {a} and {b}?", "Calculate both {a} and {b}."]).replace("{a}", a).replace("{b}", b)
    s = Script(ask, ["calc"], a + b)
    s.step("Two calculations.", [("calc", {"expression": a}), ("calc", {"expression": b})], [x, y])
    return s.end("I have both values.", f"{a} = {x}\n{b} = {y}", x, y)


def mixed_two(rng):
    one, two = rng.sample([list_one, shell_one, weather_one, time_one, read_one, note_one, timer_one], 2)
    p, q = one(rng), two(rng)
    s = Script(f"{p.ask} {rng.choice(['Also: ', 'And then: ', 'Then: ', ''])}{q.ask}", p.needed + q.needed, p.key + q.key)
    s.step("Two things to do.", p.rounds[0][1] + q.rounds[0][1], p.rounds[0][2] + q.rounds[0][2])
    return s.end("Both are done.", f"{p.last} {q.last}", *p.contains, *q.contains)


# ---------------------------------------------------------------- one after the other


def read_then_calc(rng):
    p, n, m = words.path(rng), rng.randint(2, 9999), rng.randint(2, 999)
    name, op = rng.choice(words.STEM), rng.choice("+-*")
    word = {"+": "plus", "-": "minus", "*": "times"}[op]
    value = str(eval(f"{n} {op} {m}"))
    ask = rng.choice(["What is the {k} in {p} {w} {m}?", "Read {p} and compute its {k} {w} {m}.", "Take the {k} from {p} and calculate it {w} {m}."])
    ask = ask.replace("{k}", name).replace("{p}", p).replace("{w}", word).replace("{m}", str(m))
    s = Script(ask, ["read", "calc"], p)
    s.step(f"First I need {p}.", [("read", {"path": p})], [f"{name} = {n}"])
    s.step(f"The {name} is {n}. Now {n} {op} {m}.", [("calc", {"expression": f"{n} {op} {m}"})], [value])
    return s.end("I have the value.", f"The result is {value}.", value)


def two_reads_then_calc(rng):
    a, b, n, m = words.path(rng), words.path(rng), rng.randint(2, 999), rng.randint(2, 999)
    name = rng.choice(words.STEM)
    ask = rng.choice(["Add the {k} of {a} and of {b}.", "What is the sum of the {k} in {a} and in {b}?", "Read {a} and {b} and add their {k}."])
    ask = ask.replace("{k}", name).replace("{a}", a).replace("{b}", b)
    s = Script(ask, ["read", "calc"], a + b)
    s.step("I need both files.", [("read", {"path": a}), ("read", {"path": b})], [f"{name} = {n}", f"{name} = {m}"])
    s.step(f"The values are {n} and {m}.", [("calc", {"expression": f"{n} + {m}"})], [str(n + m)])
    return s.end("I have the sum.", f"The sum is {n + m}.", n + m)


def list_then_read(rng):
    d, target = words.folder(rng), words.filename(rng)
    names = [n for n in listing(rng).split() if n.split(".")[-1] != target.split(".")[-1]] + [target]
    rng.shuffle(names)
    text, ext = line(rng), target.split(".")[-1]
    ask = rng.choice(["Read the {e} file in {d}.", "Find the {e} file in the folder {d} and show it.", "What does the {e} file in {d} say?"]).replace("{e}", ext).replace("{d}", d)
    s = Script(ask, ["list", "read"], d + target)
    s.step(f"First I list {d}.", [("list", {"path": d})], ["\n".join(names)])
    s.step(f"The {ext} file is {target}.", [("read", {"path": f"{d}/{target}"})], [text])
    return s.end("I have the content.", f"{target} says: {text}", text)


def read_then_write(rng):
    a, b, text = words.path(rng), words.path(rng), line(rng)
    ask = rng.choice(["Copy the text of {a} to {b}.", "Read {a} and write the same text to {b}.", "Put the content of {a} into {b}."]).replace("{a}", a).replace("{b}", b)
    s = Script(ask, ["read", "write"], a + b)
    s.step(f"First I read {a}.", [("read", {"path": a})], [text])
    s.step(f"Now I write it to {b}.", [("write", {"path": b, "content": text})], ["ok"])
    return s.end("The copy is written.", f"I copied the text of {a} to {b}.", b)


def grep_then_edit(rng):
    d, old, new = words.folder(rng), words.nonsense(rng), words.nonsense(rng)
    p = f"{d}/{words.filename(rng)}"
    ask = rng.choice(["Find {o} in {d} and change it to {n}.", "Somewhere in {d} it says {o}. Replace it with {n}."]).replace("{o}", old).replace("{d}", d).replace("{n}", new)
    s = Script(ask, ["grep", "edit"], d + old)
    s.step(f"First I search for {old}.", [("grep", {"pattern": old, "path": d})], [f"{p}:{rng.randint(1, 300)}: {old}"])
    s.step(f"It is in {p}.", [("edit", {"path": p, "old": old, "new": new})], ["ok"])
    return s.end("The edit worked.", f"I changed {old} to {new} in {p}.", p)


def edit_then_test(rng):
    p, old, new = words.path(rng), words.nonsense(rng), words.nonsense(rng)
    c = rng.choice(["cargo test", "make test", "cargo build", "make", "python3 test.py"])
    out = rng.choice([f"{rng.randint(2, 90)} tests passed", "ok", "1 test failed", f"{rng.randint(2, 9)} errors"])
    ask = rng.choice(["Replace {o} with {n} in {p}, then run `{c}`.", "In {p} change {o} to {n} and run `{c}` afterwards."])
    ask = ask.replace("{o}", old).replace("{n}", new).replace("{p}", p).replace("{c}", c)
    s = Script(ask, ["edit", "shell"], p + old)
    s.step("First the edit.", [("edit", {"path": p, "old": old, "new": new})], ["ok"])
    s.step(f"Now I run {c}.", [("shell", {"command": c})], [out])
    return s.end("I have the output.", f"I changed {p}. The output of {c} is: {out}", out)


def search_then_write(rng):
    q, found, p = fill(rng, rng.choice(TOPIC)), line(rng), words.path(rng)
    ask = rng.choice(["Search for {q} and save the result in {p}.", "Look up {q} on the web and write what you find to {p}."]).replace("{q}", q).replace("{p}", p)
    s = Script(ask, ["search", "write"], q + p)
    s.step("First I search.", [("search", {"query": q})], [found])
    s.step(f"Now I write it to {p}.", [("write", {"path": p, "content": found})], ["ok"])
    return s.end("The result is saved.", f"I saved the result in {p}.", p)


def read_chain(rng):
    a, b, text = words.path(rng), words.path(rng), line(rng)
    ask = rng.choice(["{a} names another file. Read that file.", "Read {a}, then read the file that it names."]).replace("{a}", a)
    s = Script(ask, ["read"], a + b)
    s.step(f"First I read {a}.", [("read", {"path": a})], [rng.choice(["see {b}", "The file is {b}.", "next: {b}"]).replace("{b}", b)])
    s.step(f"It names {b}.", [("read", {"path": b})], [text])
    return s.end("I have the content.", f"{b} says: {text}", text)


def missing_file(rng):
    p = words.path(rng)
    s = Script(rng.choice(["Read {p}.", "What is in {p}?", "Show me {p}."]).replace("{p}", p), ["read"], p)
    s.step(f"I should read {p}.", [("read", {"path": p})], [rng.choice(["Error: file not found", "Error: no such file"])])
    return s.end("The file does not exist.", f"The file {p} does not exist.", "not exist")


SINGLE = [read_one, read_one, write_one, edit_one, list_one, shell_one, shell_one, calc_one, calc_one, search_one, search_one,
          grep_one, weather_one, time_one, mail_one, timer_one, light_one, note_one]  # fmt: skip
PARALLEL = [read_two, weather_two, calc_two, mixed_two]
CHAIN = [read_then_calc, two_reads_then_calc, list_then_read, list_then_read, list_then_read, read_then_write, grep_then_edit, edit_then_test, search_then_write,
         read_chain, missing_file]  # fmt: skip

REFUSAL = {
    "mail": "send e-mails", "weather": "get the weather", "time": "tell the time", "timer": "set timers", "light": "switch lights",
    "shell": "run commands", "search": "search the web", "write": "write files", "read": "read files", "edit": "edit files",
    "list": "list folders", "grep": "search in files", "note": "keep notes",
}  # fmt: skip
SYSTEM = ["", "", "", "You are a helpful assistant", "You are a helpful assistant.", "You are DwarfStar Nano, a helpful assistant with tools.",
          "You are a coding agent. Use the tools.", "You work in the user's project. Be brief."]  # fmt: skip


def draw(rng, makers, test):
    while True:
        script = rng.choice(makers)(rng)
        if held_out(script.key) == test:
            return script


def play(rng, script, tools):
    """The conversation of a script."""
    messages = [{"role": "user", "content": script.ask}]
    for reasoning, calls, results in script.rounds:
        made = [tools[kind].call(**arguments) for kind, arguments in calls]
        messages.append({"role": "assistant", "content": "", "reasoning": reasoning, "calls": made})
        messages += [{"role": "tool", "content": result} for result in results]
    messages.append({"role": "assistant", "content": script.last, "reasoning": script.final_reasoning})
    return messages


def refusal(rng, test=False):
    """A wish, and tools that cannot fulfil it."""
    kind = rng.choice(list(REFUSAL))
    makers = {"mail": mail_one, "weather": weather_one, "time": time_one, "timer": timer_one, "light": light_one, "shell": shell_one,
              "search": search_one, "write": write_one, "read": read_one, "edit": edit_one, "list": list_one, "grep": grep_one, "note": note_one}  # fmt: skip
    script = draw(rng, [makers[kind]], test)
    # A shell could do most things, a web search some others.
    never = {kind, "shell", "search"} | ({"read", "grep"} if kind in ("read", "grep", "list") else set())
    kinds = [k for k in KINDS if k not in never]
    _, schemas = toolbox(rng, rng.sample(kinds, rng.randint(1, 4)), most=0)
    return script.ask, schemas, "None of the tools can do this.", f"I cannot {REFUSAL[kind]}: I have no tool for it."


def small_talk(rng):
    from data import chat, selfknow

    r = rng.random()
    if r < 0.4:
        question, reasoning, answer, _ = selfknow.turn(rng)
    elif r < 0.6:
        question, reasoning, answer, _ = arithmetic.turn(rng)
    else:
        question, reasoning, answer = chat.turn(rng)
    return question, "No tool is needed. " + reasoning, answer


def sample(rng):
    r = rng.random()
    system = rng.choice(SYSTEM)
    head = [{"role": "system", "content": system}] if system else []
    if r < 0.1:
        ask, schemas, reasoning, answer = refusal(rng)
        return {"messages": head + [{"role": "user", "content": ask}, {"role": "assistant", "content": answer, "reasoning": reasoning}], "tools": schemas}
    if r < 0.17:
        ask, reasoning, answer = small_talk(rng)
        _, schemas = toolbox(rng, rng.sample([k for k in KINDS if k != "calc"], rng.randint(1, 4)), most=0)
        return {"messages": head + [{"role": "user", "content": ask}, {"role": "assistant", "content": answer, "reasoning": reasoning}], "tools": schemas}
    scripts = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        makers = rng.choice([SINGLE, SINGLE, PARALLEL, CHAIN, CHAIN])
        scripts.append(draw(rng, makers, False))
    needed = list(dict.fromkeys(kind for s in scripts for kind in s.needed))
    tools, schemas = toolbox(rng, needed)
    return {"messages": head + [m for s in scripts for m in play(rng, s, tools)], "tools": schemas}


def test_item(rng, makers):
    script = draw(rng, makers, True)
    tools, schemas = toolbox(rng, script.needed)
    messages = play(rng, script, tools)
    return {"tools": schemas, "script": messages, "contains": script.contains}


def test_items(rng, count, multi):
    items = []
    for i in range(count):
        if not multi and i % 10 == 9:
            ask, schemas, _, answer = refusal(rng, True)
            items.append({"tools": schemas, "script": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}], "contains": ["I cannot"]})
        else:
            items.append(test_item(rng, PARALLEL + CHAIN if multi else SINGLE))
    return items
