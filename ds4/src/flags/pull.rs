//! The flags of `ds4 pull` alone.

use super::{Action, Command, Flag, Topic};

/// All of them, in the order of the help.
pub const FLAGS: &[Flag] = &[
    flag(
        "list",
        Action::Switch(|args| args.pull.list = true),
        "print what there is to fetch, and how large it is",
    ),
    flag(
        "dir",
        Action::Path { name: "DIR", set: |args, path| args.pull.folder = Some(path) },
        "where to put it [DS4_GGUF_DIR, else gguf in this directory]",
    ),
    flag(
        "base-url",
        Action::Text { name: "URL", set: |args, text| args.pull.base_url = Some(text) },
        "another server with the same paths; what it sends is checked like any other's \
         [HF_ENDPOINT, else https://huggingface.co]",
    ),
    flag(
        "token",
        Action::Text { name: "TOKEN", set: |args, text| args.pull.token = Some(text) },
        "sent to this server alone, not to where it redirects [HF_TOKEN, or the one that Hugging Face's \
         tools have left, unless --base-url is given]",
    ),
];

const fn flag(long: &'static str, action: Action, doc: &'static str) -> Flag {
    let commands = &[Command::Pull];
    Flag { long, short: None, topic: Topic::Pull, commands, action, doc }
}
