//! What a finished file is held to.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// The SHA-256 of all that can be read, as it is usually written. `each` is told how much was read so far.
pub fn sha256(from: &mut dyn Read, each: &mut dyn FnMut(u64)) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hash.update(buffer.get(..read).unwrap_or_default());
                done += read as u64;
                each(done);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the standard, FIPS 180-2.
    #[test]
    fn the_standards_examples() {
        for (text, hash) in [
            (b"abc".to_vec(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                b"a".repeat(1_000_000),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ),
        ] {
            let mut seen = 0;
            assert_eq!(sha256(&mut &text[..], &mut |done| seen = done).unwrap(), hash);
            assert_eq!(seen, text.len() as u64);
        }
    }
}
