"""Talks with the program as the report shows it: `transcripts.py DS4 [MODEL.gguf]`. Greedy; no package needed.

What the user says and what the tools return is written here; every word of NANO is the model's.
"""

import subprocess
import sys
import tempfile

import render

CHAT = ["Hi, I am Mona.", "What is 58 * 37?", "What is the compressor?", "What is my name?", "Thanks, bye"]
LONE = ["What is the meaning of life?", "Can you write code?", "What is mHC?"]
FILES = ["Add the total of data/orders.csv and of data/invoice.csv."]
RETURNED = {"data/orders.csv": "total = 471", "data/invoice.csv": "total = 285", "471 + 285": "756"}


def tool(name, description, parameter):
    properties = {parameter: {"type": "string"}}
    return {"name": name, "description": description, "parameters": {"type": "object", "properties": properties, "required": [parameter]}}


TOOLS = [tool("read_file", "Read a file and return its content.", "path"), tool("calculator", "Evaluate an arithmetic expression.", "expression"),
         tool("bash", "Run a shell command and return its output.", "command")]  # fmt: skip


def says(command, prompt, thinking):
    """Reasoning and the rest. The program prints a line break where the reasoning ends."""
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(prompt)
        f.flush()
        text = subprocess.run([*command, "--prompt-file", f.name], capture_output=True, text=True, check=True).stdout
    reasoning, _, rest = text.partition("\n") if thinking else ("", "", text)
    return reasoning, rest.removesuffix("\n")


def results(text):
    """What the tools return, in the order of the calls."""
    return [RETURNED[part.split(">")[-1]] for part in text.split(f"</{render.DSML}parameter>")[:-1]]


def talk(command, users, thinking, tools=()):
    messages = []
    for user in users:
        messages.append({"role": "user", "content": user})
        print(f"USER  {user}")
        while True:
            prompt = "".join(text for (_, text), _ in render.render(messages, thinking, tools))
            reasoning, text = says(command, prompt, thinking)
            shown = f"<think>{reasoning}</think>{text}" if thinking else text
            print("NANO  " + shown.replace("\n", "\n      ").replace("      \n", "\n"))
            # Its own words again, calls and all: the content of a turn is rendered as it stands.
            messages.append({"role": "assistant", "reasoning": reasoning, "content": text})
            returned = results(text)
            if not returned:
                break
            for result in returned:
                messages.append({"role": "tool", "content": result})
                print(f"TOOL  {result}")
    print()


def main(ds4, *model):
    command = [ds4, "run", *(("-m", *model) if model else ()), "--raw", "--nothink", "--temp", "0", "-n", "400"]
    talk(command, CHAT, True)
    talk(command, FILES, True, TOOLS)
    for question in LONE:
        talk(command, [question], False)


if __name__ == "__main__":
    main(*sys.argv[1:])
