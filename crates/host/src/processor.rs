//! What the processor calls itself.

use std::fs;

/// The processor's name for people; `None` where the system does not tell.
pub fn processor_name() -> Option<String> {
    name_in(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// x86 systems say "model name", some ARM boards "Model" or "Hardware".
fn name_in(text: &str) -> Option<String> {
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == wanted && !value.trim().is_empty()).then(|| value.trim().to_owned())
        })
    };
    ["model name", "Model", "Hardware"].into_iter().find_map(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_key() {
        for (text, name) in [
            ("processor\t: 0\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n", Some("AMD EPYC")),
            ("processor : 0\nModel : Raspberry Pi 5\n", Some("Raspberry Pi 5")),
            ("model name :\nHardware : Board", Some("Board")),
            ("processor : 0\n", None),
        ] {
            assert_eq!(name_in(text).as_deref(), name);
        }
    }
}
