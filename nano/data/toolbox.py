"""Tools as clients describe them: every kind comes under several names, so schemas must be read.

A kind is drawn once per conversation: its name, its parameters' names, its descriptions.
"""

# kind: names | description variants | parameters: (role, names, type, descriptions, optional?)
KINDS = {
    "read": (
        ["read_file", "read", "open_file", "get_file", "cat_file"],
        ["Read a file and return its content.", "Returns the text of a file.", "Read a text file from the workspace."],
        [("path", ["path", "file", "filename", "file_path"], "string", ["Path of the file", "The file to read"])],
    ),
    "write": (
        ["write_file", "write", "save_file", "create_file"],
        ["Write text to a file.", "Create or overwrite a file with the given text.", "Save content to a file."],
        [("path", ["path", "file", "filename", "file_path"], "string", ["Path of the file", "Where to write"]),
         ("content", ["content", "text", "data"], "string", ["The text to write", "New content of the file"])],
    ),
    "edit": (
        ["edit_file", "edit", "replace_in_file", "str_replace"],
        ["Replace a piece of text in a file.", "Replace old text by new text in a file."],
        [("path", ["path", "file", "file_path"], "string", ["Path of the file"]),
         ("old", ["old", "old_text", "search"], "string", ["Text to replace", "The text to find"]),
         ("new", ["new", "new_text", "replacement"], "string", ["The new text", "What to put in its place"])],
    ),
    "list": (
        ["list_dir", "list_files", "list", "ls"],
        ["List the files in a folder.", "Returns the names of the files in a directory."],
        [("path", ["path", "dir", "directory", "folder"], "string", ["The folder", "Directory to list"])],
    ),
    "shell": (
        ["bash", "run_command", "shell", "execute", "run_shell"],
        ["Run a shell command and return its output.", "Execute a command in the shell."],
        [("command", ["command", "cmd"], "string", ["The command to run", "Shell command"])],
    ),
    "calc": (
        ["calculator", "calculate", "calc", "evaluate", "math"],
        ["Evaluate an arithmetic expression.", "A calculator for exact results.", "Compute the value of an expression."],
        [("expression", ["expression", "expr", "input", "formula"], "string", ["The expression", "For example 2 + 3"])],
    ),
    "search": (
        ["web_search", "search", "google_search", "search_web", "find_online"],
        ["Search the web.", "Search for information on the internet.", "Look something up on the web."],
        [("query", ["query", "q", "search_query", "terms"], "string", ["What to search for", "The search query"])],
    ),
    "grep": (
        ["grep", "search_files", "find_text", "grep_files"],
        ["Search for a text in files.", "Find lines that contain a text."],
        [("pattern", ["pattern", "text", "query"], "string", ["Text to find"]),
         ("path", ["path", "folder", "dir"], "string", ["Where to search", "Folder to search in"])],
    ),
    "weather": (
        ["get_weather", "weather", "current_weather"],
        ["Get the current weather of a city.", "Weather for a place."],
        [("city", ["city", "location", "place"], "string", ["Name of the city"])],
    ),
    "mail": (
        ["send_email", "send_mail", "email"],
        ["Send an e-mail.", "Send a message by e-mail."],
        [("to", ["to", "recipient", "address"], "string", ["Who gets it"]),
         ("subject", ["subject", "title"], "string", ["Subject line"]),
         ("body", ["body", "message", "text"], "string", ["Text of the mail"])],
    ),
    "time": (
        ["get_time", "current_time", "time_in"],
        ["Get the current time of a city.", "What time it is in a place."],
        [("city", ["city", "location", "place"], "string", ["Name of the city"])],
    ),
    "timer": (
        ["set_timer", "start_timer", "timer"],
        ["Start a timer.", "Set a timer for some minutes."],
        [("minutes", ["minutes", "duration", "length"], "integer", ["How many minutes", "Length in minutes"])],
    ),
    "light": (
        ["set_light", "switch_light", "light"],
        ["Switch a light on or off.", "Control the light of a room."],
        [("room", ["room", "place"], "string", ["The room"]),
         ("on", ["on", "state", "enabled"], "boolean", ["true for on", "Whether it is on"])],
    ),
    "note": (
        ["add_note", "remember", "save_note"],
        ["Remember a note.", "Add a note to the list."],
        [("text", ["text", "note", "content"], "string", ["The note"])],
    ),
}  # fmt: skip


class Tool:
    """One kind, named for one conversation."""

    def __init__(self, rng, kind):
        names, descriptions, parameters = KINDS[kind]
        # The usual name is the usual case.
        self.kind, self.name = kind, names[0] if rng.random() < 0.35 else rng.choice(names)
        self.names = {}
        properties, required = {}, []
        for role, keys, type_, texts in parameters:
            free = [k for k in keys if k not in properties]
            key = free[0] if rng.random() < 0.35 else rng.choice(free)
            self.names[role] = key
            properties[key] = {"type": type_}
            if rng.random() < 0.7:
                properties[key]["description"] = rng.choice(texts)
            required.append(key)
        parameters = {"type": "object", "properties": properties}
        if rng.random() < 0.85:
            parameters["required"] = required
        self.schema = {"name": self.name, "description": rng.choice(descriptions), "parameters": parameters}

    def call(self, **arguments):
        return (self.name, {self.names[role]: value for role, value in arguments.items()})


def toolbox(rng, needed, most=5):
    """The needed kinds and some others, in any order: {kind: Tool} and the schemas."""
    others = [k for k in KINDS if k not in needed]
    kinds = list(needed) + rng.sample(others, rng.randint(0, max(0, most - len(needed))))
    rng.shuffle(kinds)
    tools, used = {}, set()
    for kind in kinds:
        tool = Tool(rng, kind)
        while tool.name in used:
            tool = Tool(rng, kind)
        used.add(tool.name)
        tools[kind] = tool
    return tools, [tool.schema for tool in tools.values()]
