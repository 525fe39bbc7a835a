//! Compiles the CUDA kernels ahead of time, so that a release needs no compiler where it runs, and
//! checks without a card that they compile for every target and spill no registers where it matters.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::arguments::Arguments;

pub const USAGE: &str = "[--check] [--out DIR] [--targets 80,90a,...]
    compile the CUDA kernels for every target; build with DS4_KERNELS=DIR to put them into the program.
    The compiler is $NVCC, or nvcc of $CUDA_HOME, or of the PATH; the PyPI package nvidia-cuda-nvcc has one";

/// Compute capabilities of releases.
const TARGETS: &str = "80,86,89,90a,100a,120a,121a";
/// Kernels in which a spilled register costs speed.
const HOT: &[&str] = &[
    "products_1",
    "products_8",
    "hyper_write",
    "hyper_read",
    "hyper_together",
    "hyper_together_2",
    "hyper_together_parts",
    "hyper_together_2_parts",
    "attend_parts",
    "attend_join",
    "attend_together",
    "attend_8",
    "attend_16",
    "attend_16_whole",
    "index_scores",
    "index_scores_tensor",
    "index_top",
    "index_together",
    "keep_rows",
    "settle_rows",
    "half_products_1",
    "half_queries_1",
    "half_products_8",
    "half_products_8_q8",
    "half_products_together_8",
    "half_products_together_16",
    "router_and_shared_8",
    "router_and_shared_16",
    "shared_output_8",
    "shared_output_16",
    "one_router_and_shared",
    "one_experts_in",
    "half_experts_in_8_iq2",
    "one_experts_out",
    "number_inner",
    "half_experts_out_8_q2",
    "scan_logits",
    "list_logits",
    "wide_f16",
    "wide_q8_0",
    "wide_fp8",
    "wide_mxfp4",
    "wide_fp4",
    "wide_iq2_xxs",
    "wide_q2_k",
    "wide_whole_q2_k",
    "wide_q4_k",
    "pack_vectors",
];

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["out", "targets"], &["check"])?;
    let nvcc = compiler()?;
    let out = match arguments.get("out") {
        Some(out) => PathBuf::from(out),
        None => env::temp_dir().join(format!("ds4-kernels-{}", std::process::id())),
    };
    let problem = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(&out).map_err(|e| problem(&out, e))?;
    let source = out.join("kernels.cu");
    fs::write(&source, ds4_cuda::KERNEL_SOURCE).map_err(|e| problem(&source, e))?;

    let mut sound = true;
    for target in arguments.get("targets").unwrap_or(TARGETS).split(',') {
        let image = out.join(format!("kernels-sm_{target}-{}.cubin", ds4_cuda::kernel_hash()));
        let output = Command::new(&nvcc)
            .args(["-cubin", "-O3", "-std=c++17", "-Xptxas", "-v"])
            .arg(format!("-gencode=arch=compute_{target},code=sm_{target}"))
            .arg("-o")
            .args([&image, &source])
            .output()
            .map_err(|e| format!("{}: {e}", nvcc.display()))?;
        let report = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("sm_{target}: {}", report.lines().next().unwrap_or("nvcc failed")));
        }
        let slow: Vec<String> = spills(&report)
            .into_iter()
            .filter(|(kernel, bytes)| *bytes > 0 && HOT.contains(&kernel.as_str()))
            .map(|(kernel, bytes)| format!("{kernel} spills {bytes} bytes"))
            .chain(waiting(&report).map(|kernel| format!("{kernel} waits for each product")))
            .collect();
        let size = fs::metadata(&image).map_err(|e| problem(&image, e))?.len();
        let verdict = if slow.is_empty() { "ok".to_owned() } else { slow.join(", ") };
        println!("sm_{target}: {} KiB, {verdict}", size / 1024);
        sound &= slow.is_empty();
    }
    fs::remove_file(&source).map_err(|e| problem(&source, e))?;
    if arguments.get("out").is_none() {
        fs::remove_dir_all(&out).map_err(|e| problem(&out, e))?;
    }
    Ok(sound || !arguments.has("check"))
}

fn compiler() -> Result<PathBuf, String> {
    if let Some(nvcc) = env::var_os("NVCC") {
        return Ok(PathBuf::from(nvcc));
    }
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    home.into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("nvcc"))
        .find(|nvcc| nvcc.is_file())
        .ok_or_else(|| {
            "no nvcc: set NVCC or CUDA_HOME, or `pip install nvidia-cuda-nvcc`".to_owned()
        })
}

/// The bytes that each kernel spills, by what the assembler says of them.
fn spills(report: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut kernel = String::new();
    for line in report.lines() {
        if let Some(rest) = line.split("entry function '").nth(1) {
            kernel = rest.split('\'').next().unwrap_or_default().to_owned();
        } else if let Some(before) = line.split(" bytes spill stores").next()
            && before.len() < line.len()
        {
            let bytes = before.rsplit([' ', ',']).next().and_then(|n| n.parse().ok());
            found.push((kernel.clone(), bytes.unwrap_or(0)));
        }
    }
    found
}

/// The kernels in which the assembler lets no product of a group of warps run beside other work.
fn waiting(report: &str) -> impl Iterator<Item = &str> {
    report
        .lines()
        .filter(|line| line.contains("wgmma.mma_async instructions are serialized"))
        .map(|line| line.rsplit('\'').nth(1).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{spills, waiting};

    #[test]
    fn kernels_that_wait_are_read_from_the_assemblers_words() {
        let report = "ptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async \
                      instructions are serialized due to insufficient register resources for the \
                      wgmma pipeline in the function 'a'\n\
                      ptxas info    : Compiling entry function 'b' for 'sm_90a'\n";
        assert_eq!(waiting(report).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn spills_are_read_from_the_assemblers_words() {
        let report = "ptxas info    : Compiling entry function 'a' for 'sm_90a'\n\
                      ptxas info    : Function properties for a\n    \
                      0 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n\
                      ptxas info    : Compiling entry function 'b' for 'sm_90a'\n    \
                      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        assert_eq!(spills(report), [("a".to_owned(), 12), ("b".to_owned(), 0)]);
    }
}
