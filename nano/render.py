"""Conversations as the official encoder writes them: a list of (marker?, text) parts.

Only markers become special tokens. What a user, a file or a tool wrote is plain text, even where it
spells a marker.
"""

import json
import re

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK, DSML = "<think>", "</think>", "｜DSML｜"

TOOLS = f"""## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<{DSML}tool_calls>" block like the following:

<{DSML}tool_calls>
<{DSML}invoke name="$TOOL_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$TOOL_NAME2">
...
</{DSML}invoke>
</{DSML}tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by {THINK}), you MUST output your complete reasoning inside {THINK}...{END_THINK} BEFORE any tool calls or final response.

Otherwise, output directly after {END_THINK} with tool calls or final response.

### Available Tool Schemas

"""
TOOLS_END = "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"
RESPONSE_FORMAT = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
MAX_EFFORT = """Reasoning Effort: Absolute maximum with no shortcuts permitted.
You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.
Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.

"""


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def structural(text):
    """Splits our own frame text at the markers it holds."""
    parts = re.split(f"({re.escape(DSML)}|{THINK}|{END_THINK})", text)
    return [(i % 2 == 1, part) for i, part in enumerate(parts) if part]


def tools_block(tools):
    schemas = [(False, "\n".join(dumps(tool) for tool in tools))]
    return structural(TOOLS) + schemas + structural(TOOLS_END)


def calls_block(calls):
    """calls: [(name, {parameter: value})]"""
    parts = structural(f"\n\n<{DSML}tool_calls>\n")
    for i, (name, arguments) in enumerate(calls):
        parts += structural(("\n" if i else "") + f"<{DSML}invoke name=\"") + [(False, name)]
        parts += [(False, '">\n')]
        for j, (key, value) in enumerate(arguments.items()):
            text, kind = (value, "true") if isinstance(value, str) else (dumps(value), "false")
            parts += structural(("\n" if j else "") + f"<{DSML}parameter name=\"")
            parts += [(False, f'{key}" string="{kind}">{text}')]
            parts += structural(f"</{DSML}parameter>")
        parts += structural(f"\n</{DSML}invoke>")
    return parts + structural(f"\n</{DSML}tool_calls>")


def render(messages, thinking, tools=(), schema=None, effort=False):
    """Parts and, for each, whether it is the model's own words.

    messages: {"role": system|user|tool|assistant, "content", "reasoning", "calls"}. Ends with the
    opening of an assistant turn if the last message is not one.
    """
    out = [((True, BOS), False)]
    add = lambda parts, own=False: out.extend((p, own) for p in parts if p[1])
    if thinking and effort:
        add([(False, MAX_EFFORT)])
    if not messages or messages[0]["role"] != "system":
        messages = [{"role": "system", "content": ""}, *messages] if tools or schema else messages
    last_user = max((i for i, m in enumerate(messages) if m["role"] in ("user", "tool")), default=-1)
    previous = None
    for i, m in enumerate(messages):
        role = m["role"]
        if role == "system":
            add([(False, m["content"])])
            if tools:
                add([(False, "\n\n"), *tools_block(tools)])
            if schema is not None:
                add([(False, "\n\n" + RESPONSE_FORMAT + dumps(schema))])
        elif role in ("user", "tool"):
            text = m["content"] if role == "user" else f"<tool_result>{m['content']}</tool_result>"
            add([(False, "\n\n")] if previous in ("user", "tool") else [(True, USER)])
            add([(False, text)])
        else:
            keeps = thinking and (tools or i > last_user)
            add([(True, ASSISTANT), (True, THINK if keeps else END_THINK)])
            if keeps:
                add([(False, m.get("reasoning", "")), (True, END_THINK)], True)
            add([(False, m["content"])], True)
            if m.get("calls"):
                add(calls_block(m["calls"]), True)
            add([(True, EOS)], True)
        previous = role
    if previous in ("user", "tool"):
        add([(True, ASSISTANT), (True, THINK if thinking else END_THINK)])
    return merge(out)


def merge(parts):
    """Adjacent plain texts of one speaker are one segment: a segment is tokenised on its own."""
    out = []
    for (marker, text), own in parts:
        if out and not marker and not out[-1][0][0]:
            (_, before), owner = out[-1]
            # A segment has one owner; text of both is the prompt's up to here.
            if owner == own:
                out[-1] = ((False, before + text), own)
                continue
        out.append(((marker, text), own))
    return out
