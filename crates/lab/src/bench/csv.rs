//! A benchmark as lines for a spreadsheet: one for each context length and batch size.
//!
//! The first six columns are those of the original's benchmark, so that its charts can read ours.

use super::Report;

const HEADER: &str = "ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes,\
batch,prefill_tps_min,prefill_tps_max,gen_tps_min,gen_tps_max,gen_ms_p50,gen_ms_p99,\
bytes_per_token,bandwidth_share";

/// The header and the lines.
pub fn csv(report: &Report) -> String {
    let mut text = format!("{HEADER}\n");
    for frontier in &report.frontiers {
        let prefill = &frontier.prefill;
        let left = format!("{},{},{:.2}", frontier.tokens, frontier.added, prefill.median());
        let extremes = format!("{:.2},{:.2}", prefill.min(), prefill.max());
        let bytes = frontier.state_bytes;
        if frontier.decode.is_empty() {
            text += &format!("{left},0,0.00,{bytes},0,{extremes},0.00,0.00,0.000,0.000,0,0.0000\n");
        }
        for decode in &frontier.decode {
            let rate = &decode.rate;
            text += &format!(
                "{left},{},{:.2},{bytes},{},{extremes},{:.2},{:.2},{:.3},{:.3},{:.0},{:.4}\n",
                decode.tokens,
                rate.median(),
                decode.batch,
                rate.min(),
                rate.max(),
                1e3 * decode.step_median,
                1e3 * decode.step_99,
                decode.bytes_per_token,
                decode.bandwidth_share(&report.limits),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn lines_have_the_columns_of_the_header() {
        let report = example::report();
        let text = csv(&report);
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        assert!(header.starts_with(
            "ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes,batch,"
        ));
        let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 4, "two contexts, two batches");
        assert!(lines.iter().all(|line| line.len() == header.split(',').count()));
        assert_eq!(lines[0][..8], ["4", "4", "20.00", "2", "10.00", "1000", "1", "10.00"]);
        assert_eq!(lines[3][6], "4");
        assert_eq!(lines[0].last(), Some(&"0.5000"));
    }

    #[test]
    fn prompts_alone_have_lines_too() {
        let mut report = example::report();
        report.frontiers.iter_mut().for_each(|frontier| frontier.decode.clear());
        let text = csv(&report);
        let columns: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns.len(), 3);
        assert!(columns.iter().all(|count| *count == columns[0]), "{text}");
    }
}
