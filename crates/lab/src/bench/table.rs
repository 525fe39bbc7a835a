//! A benchmark for people: the facts, the table, and where the time went.

use std::fmt::{Display, Write};

use super::{IntegerPeak, Limits, Report, StageCost};
use crate::{Summary, statistics::ratio};

/// The facts and the speeds.
pub fn table(report: &Report) -> String {
    let mut text = facts(report);
    text += "\n ctx tokens  prefill t/s  (min - max)          batch  decode t/s  (min - max)          \
             t/s each   ms p50   ms p99  GB/token  share\n";
    for frontier in &report.frontiers {
        let prefill = &frontier.prefill;
        let left =
            format!("{:>11}  {:>11.2}  {:<20}", frontier.tokens, prefill.median(), range(prefill));
        let mut left = left.as_str();
        if frontier.decode.is_empty() {
            line(&mut text, left);
        }
        for decode in &frontier.decode {
            let rate = &decode.rate;
            line(
                &mut text,
                format_args!(
                    "{left:<46}{:>5}  {:>10.2}  {:<20}{:>8.2}  {:>7.2}  {:>7.2}  {:>8.3}  {:>4.0} %",
                    decode.batch,
                    rate.median(),
                    range(rate),
                    decode.rate_each(),
                    1e3 * decode.step_median,
                    1e3 * decode.step_99,
                    decode.bytes_per_token / 1e9,
                    100.0 * decode.bandwidth_share(&report.limits),
                ),
            );
            left = "";
        }
    }
    line(
        &mut text,
        format_args!(
            "\nmedians of {} runs after {} to warm up; decode counts all sessions together, then \
             each of them; share is what a token must read, against the read bandwidth",
            report.options.runs, report.options.warm_up
        ),
    );
    for caveat in report.caveats() {
        line(&mut text, format_args!("note: {caveat}"));
    }
    text
}

fn facts(report: &Report) -> String {
    let Report { machine, subject, options, limits, .. } = report;
    let mut text = String::new();
    let mut fact = |name: &str, value: String| line(&mut text, format_args!("{name:<9} {value}"));
    let memory = machine.memory.map_or_else(String::new, |bytes| {
        format!(", {:.0} GiB of memory", bytes as f64 / f64::from(1 << 30))
    });
    fact(
        "machine",
        format!(
            "{}, {} cores, {} ({}){memory}",
            machine.processor,
            machine.cores,
            machine.system,
            machine.instruction_sets.join(" ")
        ),
    );
    let formats: Vec<String> =
        subject.formats.iter().map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
    fact("model", format!("{} ({}): {}", subject.file, subject.model, formats.join(", ")));
    fact(
        "settings",
        format!(
            "backend {}, {} threads, rounding {}, activations {}, context {}, chunk {}, prompt {}",
            subject.backend,
            subject.threads,
            subject.rounding,
            subject.activations,
            options.session.context,
            options.session.chunk,
            subject.prompt
        ),
    );
    let all = gigabytes(&limits.read_all);
    fact(
        "limits",
        match &limits.card {
            Some(card) => format!("{card}, which reads {all} GB/s of its memory"),
            None => format!(
                "reads {all} GB/s with {} cores, {} GB/s with one",
                limits.cores,
                gigabytes(&limits.read_one)
            ),
        },
    );
    if let Some(peak) = &limits.integers {
        fact(
            "",
            format!(
                "{:.2} TOP/s of 8-bit integers, assuming {} at the measured {:.2} GHz of all cores together",
                peak.operations() / 1e12,
                peak.assumption,
                peak.cycles / 1e9
            ),
        );
    }
    text
}

/// Where the time went, for the prompt and each batch size at each context length. The shares are of
/// the read bandwidth and of the integer peak.
pub fn roofline(report: &Report) -> String {
    let mut text = String::new();
    let limits = &report.limits;
    for frontier in &report.frontiers {
        if !frontier.prefill_stages.is_empty() {
            let title = format!("prompt to {} tokens, for each token", frontier.tokens);
            stages(&mut text, &title, &frontier.prefill_stages, limits);
        }
        for decode in frontier.decode.iter().filter(|decode| !decode.stages.is_empty()) {
            let (tokens, batch) = (frontier.tokens, decode.batch);
            let title = format!("decode at {tokens} tokens, batch {batch}, for each step");
            stages(&mut text, &title, &decode.stages, limits);
        }
    }
    if text.is_empty() {
        line(
            &mut text,
            format_args!("\nthe {} backend measures no stages", report.subject.backend),
        );
    }
    text
}

fn stages(text: &mut String, title: &str, stages: &[StageCost], limits: &Limits) {
    line(text, format_args!("\n{title}"));
    line(text, "  stage                      us  time      GB/s  share     GOP/s  share");
    let bandwidth = limits.read_all.median();
    let peak = limits.integers.as_ref().map(IntegerPeak::operations);
    let time: f64 = stages.iter().map(|stage| stage.seconds.median()).sum();
    let total = StageCost {
        name: "all",
        seconds: Summary::of([time]),
        bytes: stages.iter().map(|stage| stage.bytes).sum(),
        operations: stages.iter().map(|stage| stage.operations).sum(),
    };
    for stage in stages.iter().chain([&total]) {
        let seconds = stage.seconds.median();
        line(
            text,
            format_args!(
                "  {:<20}{:>9.1}  {:>3.0} %  {:>7.2}  {:>3.0} %  {:>8.1}  {}",
                stage.name,
                1e6 * seconds,
                100.0 * ratio(seconds, time),
                stage.bandwidth() / 1e9,
                100.0 * ratio(stage.bandwidth(), bandwidth),
                stage.rate() / 1e9,
                match peak {
                    Some(peak) => format!("{:>3.0} %", 100.0 * ratio(stage.rate(), peak)),
                    None => "  -".to_owned(),
                },
            ),
        );
    }
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.2} GB", bytes / 1e9),
    }
}

fn range(summary: &Summary) -> String {
    format!("({:.2} - {:.2})", summary.min(), summary.max())
}

fn gigabytes(summary: &Summary) -> String {
    let [median, min, max] = [summary.median(), summary.min(), summary.max()].map(|x| x / 1e9);
    format!("{median:.1} ({min:.1} - {max:.1})")
}

fn line(text: &mut String, line: impl Display) {
    // A string takes everything.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn the_table_says_machine_file_quant_context_batch_and_share() {
        let text = table(&example::report());
        for part in [
            "Example 9000, 2 cores",
            "model.gguf (tiny): Q8_0 1.50 GB",
            "2 threads, rounding official, activations f32, context 8",
            "reads 10.0 (9.0 - 11.0) GB/s with 2 cores",
            "assuming two 512-bit dot products",
            "medians of 3 runs",
            " 50 %",
            "note: ",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let rows: Vec<&str> = text.lines().filter(|line| line.ends_with(" %")).collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "columns line up: {text}");
        assert!(text.lines().all(|line| line.len() < 200));
    }

    #[test]
    fn a_card_is_named_and_compared_with_itself() {
        let mut report = example::report();
        report.limits.card = Some("Example GPU".into());
        report.options.stages = true;
        let text = table(&report);
        assert!(text.contains("Example GPU, which reads 10.0 (9.0 - 11.0) GB/s"), "{text}");
        assert!(text.contains("a run of their own"), "{text}");
        assert!(!text.contains("with one"), "{text}");
    }

    #[test]
    fn stages_have_their_share() {
        let text = roofline(&example::report());
        assert!(text.contains("decode at 4 tokens, batch 1, for each step"), "{text}");
        let row = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("experts"), "experts 75.0 75 % 8.00 80 % 32.0 2 %");
        assert_eq!(row("all"), "all 100.0 100 % 6.50 65 % 26.0 1 %");
        let mut report = example::report();
        report.limits.integers = None;
        assert!(roofline(&report).contains("80 %      32.0    -\n"), "no peak, no share");
    }

    #[test]
    fn a_backend_without_timers_says_so() {
        let mut report = example::report();
        for frontier in &mut report.frontiers {
            frontier.prefill_stages.clear();
            frontier.decode.iter_mut().for_each(|decode| decode.stages.clear());
        }
        assert_eq!(roofline(&report), "\nthe cpu backend measures no stages\n");
    }
}
