"""Small arithmetic, thought through digit by digit. One pair in twelve is kept for the test."""

import zlib

from data.words import FIRST, FOOD, THING, person


def held_out(a, op, b):
    return zlib.crc32(f"{a}{op}{b}".encode()) % 12 == 0


def add(a, b):
    """The steps and the sum, from the last digit to the first."""
    x, y = str(a)[::-1], str(b)[::-1]
    steps, carry = [], 0
    for i in range(max(len(x), len(y))):
        p, q = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        total = p + q + carry
        term = f"{p} + {q}" + (f" + {carry}" if carry else "")
        carry = total // 10
        steps.append(f"{term} = {total}, write {total % 10}" + (f", carry {carry}" if carry else ""))
    if carry:
        steps.append(f"write {carry}")
    return "; ".join(steps), a + b


def subtract(a, b):
    if a < b:
        steps, value = subtract(b, a)
        return f"{a} is less than {b}, so the result is minus {b} - {a}. {steps}", -value
    x, y = str(a)[::-1], str(b)[::-1]
    steps, borrow = [], 0
    for i in range(len(x)):
        p, q = int(x[i]), int(y[i]) if i < len(y) else 0
        term = f"{p} - {q}" + (f" - {borrow}" if borrow else "")
        value = p - q - borrow
        borrow = int(value < 0)
        if borrow:
            steps.append(f"{term} is below 0, {value + 10}, borrow 1")
        else:
            steps.append(f"{term} = {value}")
    return "; ".join(steps), a - b


def multiply(a, b):
    if b < 10 and a < 100:
        tens, ones = a // 10 * 10, a % 10
        if not tens or not ones:
            return f"{a} * {b} = {a * b}", a * b
        p, q = tens * b, ones * b
        return f"{tens} * {b} = {p}; {ones} * {b} = {q}; {p} + {q} = {p + q}", a * b
    if a < 10:
        return multiply(b, a)
    tens, ones = b // 10, b % 10
    first, p = multiply(a, tens)
    if not ones:
        return f"{first}; times 10 = {p * 10}", a * b
    second, q = multiply(a, ones)
    steps, _ = add(p * 10, q)
    return f"{first}; times 10 = {p * 10}; {second}; now {p * 10} + {q}: {steps}", a * b


WORK = {"+": add, "-": subtract, "*": multiply}
SIGNS = {"+": "+", "-": "-", "*": "*x×"}
NAMES = {
    "+": ["What is the sum of {a} and {b}?", "Add {a} and {b}.", "What is {a} plus {b}?", "How much is {a} plus {b}?"],
    "-": ["Subtract {b} from {a}.", "What is {a} minus {b}?", "What is the difference of {a} and {b}?", "How much is {a} minus {b}?"],
    "*": ["Multiply {a} by {b}.", "What is {a} times {b}?", "What is the product of {a} and {b}?", "How much is {a} times {b}?"],
}  # fmt: skip
PLAIN = ["{a} {s} {b}", "What is {a} {s} {b}?", "{a} {s} {b} = ?", "Compute {a} {s} {b}.", "Calculate {a} {s} {b}",
         "How much is {a} {s} {b}?", "{a}{s}{b}", "Please work out {a} {s} {b}.", "{a} {s} {b}="]  # fmt: skip


def question(rng, a, op, b):
    form = rng.choice(PLAIN) if rng.random() < 0.65 else rng.choice(NAMES[op])
    return form.replace("{a}", str(a)).replace("{b}", str(b)).replace("{s}", rng.choice(SIGNS[op]))


def operands(rng, test):
    while True:
        op = rng.choice("+-*")
        if test or rng.random() < 0.75:
            a, b = rng.randint(10, 99), rng.randint(10, 99)
        elif op == "*":
            a, b = rng.randint(0, 99), rng.randint(0, 12)
        else:
            top = rng.choice([9, 99, 999, 9999])
            a, b = rng.randint(0, top), rng.randint(0, top)
        if held_out(a, op, b) == test:
            return a, op, b


def answer(rng, a, op, b, value):
    sign = "×" if op == "*" and rng.random() < 0.3 else op
    return rng.choice([f"{a} {sign} {b} = {value}", f"{a} {sign} {b} = {value}", f"The answer is {value}.", f"{value}"])


def sum_turn(rng, test=False):
    a, op, b = operands(rng, test)
    steps, value = WORK[op](a, b)
    reasoning = f"{a} {op} {b}: {steps}. So {value}."
    return question(rng, a, op, b), reasoning, answer(rng, a, op, b, value), value


def unseen(rng, op, first, second):
    """A pair in these ranges that is not kept for the test."""
    while True:
        a, b = rng.randint(*first), rng.randint(*second)
        if not held_out(a, op, b):
            return a, b


def story_turn(rng):
    """A lookup or two, then a sum."""
    kind = rng.randrange(7)
    name, other = rng.sample(FIRST, 2)
    if kind == 0:
        a, b = unseen(rng, "+", (2, 60), (2, 60))
        thing = rng.choice(THING)
        steps, value = add(a, b)
        text = f"{name} has {a} {thing}s. {other} has {b} more {thing}s than {name}. How many does {other} have?"
        return text, f"{name} has {a}. {other} has {b} more: {a} + {b}: {steps}. So {value}.", f"{other} has {value} {thing}s.", value
    if kind == 1:
        foods = rng.sample(FOOD, 3)
        prices = [rng.randint(2, 19) for _ in foods]
        i, n = rng.randrange(3), rng.randint(2, 9)
        steps, value = multiply(prices[i], n)
        listed = ", ".join(f"{f} {p}" for f, p in zip(foods, prices))
        text = f"Prices: {listed}. What do {n} pieces of {foods[i]} cost?"
        return text, f"{foods[i]} costs {prices[i]}. {prices[i]} * {n}: {steps}. So {value}.", f"They cost {value}.", value
    if kind == 2:
        a, b = unseen(rng, "-", (50, 99), (2, 49))
        steps, value = subtract(a, b)
        thing = rng.choice(THING)
        text = f"There are {a} {thing}s in the shop. {name} buys {b} of them. How many are left?"
        return text, f"{a} - {b}: {steps}. So {value}.", f"{value} {thing}s are left.", value
    if kind == 3:
        age, d1 = unseen(rng, "+", (5, 60), (1, 20))
        _, d2 = unseen(rng, "+", (age + d1, age + d1), (1, 20))
        third = person(rng)
        while third in (name, other):
            third = person(rng)
        s1, v1 = add(age, d1)
        s2, v2 = add(v1, d2)
        text = f"{name} is {age} years old. {other} is {d1} years older than {name}. {third} is {d2} years older than {other}. How old is {third}?"
        return text, f"{other}: {age} + {d1}: {s1}. So {v1}. {third}: {v1} + {d2}: {s2}. So {v2}.", f"{third} is {v2} years old.", v2
    if kind >= 5:
        b, value = rng.randint(2, 12), rng.randint(2, 25)
        a, form = b * value, rng.choice(["{a} / {b}", "What is {a} / {b}?", "What is {a} divided by {b}?", "Divide {a} by {b}.", "{a}/{b}", "Compute {a} / {b}."])
        return form.replace("{a}", str(a)).replace("{b}", str(b)), f"{b} * {value} = {a}. So {value}.", rng.choice([f"{a} / {b} = {value}", f"The answer is {value}."]), value
    a, b = rng.randint(10, 999), rng.randint(10, 999)
    while a == b:
        b = rng.randint(10, 999)
    word, value = rng.choice([("larger", max(a, b)), ("smaller", min(a, b))])
    return f"Which number is {word}, {a} or {b}?", f"{a} {'>' if a > b else '<'} {b}, so {value}.", f"{value}", value


def turn(rng, test=False):
    return sum_turn(rng, test) if test or rng.random() < 0.8 else story_turn(rng)


def sample(rng):
    messages = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        asked, reasoning, said, _ = turn(rng)
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": said, "reasoning": reasoning})
    return {"messages": messages}


def test_items(rng, count):
    items = []
    for _ in range(count):
        asked, _, _, value = sum_turn(rng, True)
        items.append({"messages": [{"role": "user", "content": asked}], "last_integer": value})
    return items
