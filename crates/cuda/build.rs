//! Puts machine code that `cargo xtask kernels` has made into the program, where there is some:
//! `DS4_KERNELS` names the folder. Without it the kernels are compiled when they are first needed.

use std::{env, fmt::Write, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=DS4_KERNELS");
    let mut table = String::from(
        "/// Machine code: its target, the hash of the source it was made of, the image.\n\
         const BUILT_KERNELS: &[(&str, &str, &[u8])] = &[\n",
    );
    if let Some(folder) = env::var_os("DS4_KERNELS") {
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        paths.sort();
        for path in paths {
            // kernels-TARGET-HASH.cubin
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let parts: Vec<&str> = name.split('-').collect();
            if let (["kernels", target, hash], Some("cubin")) =
                (&parts[..], path.extension().and_then(|e| e.to_str()))
            {
                let path = fs::canonicalize(&path)?;
                writeln!(table, "    ({target:?}, {hash:?}, include_bytes!({path:?})),")?;
            }
        }
    }
    table += "];\n";
    fs::write(
        PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("built_kernels.rs"),
        table,
    )?;
    Ok(())
}
