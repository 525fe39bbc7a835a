//! A benchmark for programs: everything, every single run included.

use serde_json::{Map, Value, json};

use super::{Decode, Frontier, IntegerPeak, Report, StageCost};
use crate::Summary;

/// Changes whenever a reader of the old form would misunderstand the new one.
const VERSION: u32 = 1;

/// The report. Rates are per second, times in seconds unless their names say otherwise.
pub fn json(report: &Report) -> Value {
    let Report { machine, subject, options, limits, frontiers } = report;
    let formats: Map<String, Value> =
        subject.formats.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes))).collect();
    json!({
        "source": "ds4-bench",
        "version": VERSION,
        "decode_bandwidth_share": report.decode_bandwidth_share(),
        "machine": {
            "processor": machine.processor,
            "cores": machine.cores,
            "instruction_sets": machine.instruction_sets,
            "memory_bytes": machine.memory,
            "system": machine.system,
        },
        "model": {
            "file": subject.file,
            "name": subject.model,
            "weight_bytes": subject.weight_bytes(),
            "weight_bytes_by_format": formats,
        },
        "settings": {
            "backend": subject.backend,
            "threads": subject.threads,
            "rounding": subject.rounding,
            "activations": subject.activations,
            "prompt": subject.prompt,
            "ctx": options.session.context,
            "prefill_chunk": options.session.chunk,
            "gen_tokens": options.decode,
            "batches": options.batches,
            "runs": options.runs,
            "warm_up_runs": options.warm_up,
        },
        "limits": {
            "card": limits.card,
            "cores": limits.cores,
            "sample_bytes": limits.sample_bytes,
            "read_bytes_per_second": summary(&limits.read_all),
            "read_bytes_per_second_one_core": match limits.card {
                None => summary(&limits.read_one),
                Some(_) => Value::Null,
            },
            "integer_peak": limits.integers.as_ref().map(integers),
        },
        "frontiers": frontiers.iter().map(|f| frontier(report, f)).collect::<Vec<_>>(),
        "caveats": report.caveats(),
    })
}

fn integers(peak: &IntegerPeak) -> Value {
    json!({
        "operations_per_second": peak.operations(),
        "cycles_per_second": peak.cycles,
        "assumed_operations_per_cycle": peak.per_cycle,
        "assumption": peak.assumption,
    })
}

fn frontier(report: &Report, frontier: &Frontier) -> Value {
    json!({
        "ctx_tokens": frontier.tokens,
        "prefill_tokens": frontier.added,
        "prefill_tps": summary(&frontier.prefill),
        "prefill_operations_per_second": frontier.prefill_operations,
        "kvcache_bytes": frontier.state_bytes,
        "prefill_stages_per_token": stages(&frontier.prefill_stages),
        "decode": frontier.decode.iter().map(|d| decode(report, d)).collect::<Vec<_>>(),
    })
}

fn decode(report: &Report, decode: &Decode) -> Value {
    json!({
        "batch": decode.batch,
        "gen_tokens": decode.tokens,
        "gen_tps": summary(&decode.rate),
        "gen_tps_spread": decode.rate.spread(),
        "gen_tps_each": decode.rate_each(),
        "gen_ms_p50": 1e3 * decode.step_median,
        "gen_ms_p99": 1e3 * decode.step_99,
        "bytes_per_token": decode.bytes_per_token,
        "bandwidth_share": decode.bandwidth_share(&report.limits),
        "stages_per_step": stages(&decode.stages),
    })
}

fn stages(stages: &[StageCost]) -> Vec<Value> {
    let stage = |stage: &StageCost| {
        json!({
            "name": stage.name,
            "seconds": summary(&stage.seconds),
            "bytes": stage.bytes,
            "operations": stage.operations,
        })
    };
    stages.iter().map(stage).collect()
}

fn summary(summary: &Summary) -> Value {
    json!({
        "median": summary.median(),
        "min": summary.min(),
        "max": summary.max(),
        "runs": summary.runs,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::example, *};

    #[test]
    fn what_a_reader_needs_is_there() {
        let report = json(&example::report());
        assert_eq!(report["decode_bandwidth_share"], 0.5);
        for path in [
            "/source",
            "/machine/processor",
            "/machine/cores",
            "/machine/instruction_sets/0",
            "/machine/memory_bytes",
            "/model/file",
            "/model/weight_bytes",
            "/model/weight_bytes_by_format/Q8_0",
            "/settings/threads",
            "/settings/rounding",
            "/settings/activations",
            "/settings/ctx",
            "/limits/read_bytes_per_second/median",
            "/limits/read_bytes_per_second_one_core/median",
            "/limits/integer_peak/assumption",
            "/frontiers/1/ctx_tokens",
            "/frontiers/0/prefill_tps/median",
            "/frontiers/0/prefill_stages_per_token",
            "/frontiers/0/decode/1/batch",
            "/frontiers/0/decode/0/gen_tps/min",
            "/frontiers/0/decode/0/gen_ms_p99",
            "/frontiers/0/decode/0/gen_tps_spread",
            "/frontiers/0/decode/0/bandwidth_share",
            "/frontiers/0/decode/0/stages_per_step/0/seconds/median",
        ] {
            let value = report.pointer(path);
            assert!(value.is_some_and(|value| !value.is_null()), "{path} in {report:#}");
        }
        let four = &report["frontiers"][0]["decode"][1];
        assert_eq!((&four["batch"], &four["gen_tps_each"]), (&json!(4), &json!(2.5)));
        let share = &report["frontiers"][0]["decode"][0];
        let by_hand = share["bytes_per_token"].as_f64().unwrap()
            * share["gen_tps"]["median"].as_f64().unwrap()
            / report["limits"]["read_bytes_per_second"]["median"].as_f64().unwrap();
        assert_eq!(by_hand, share["bandwidth_share"].as_f64().unwrap());
    }

    #[test]
    fn a_card_has_limits_of_its_own() {
        let mut report = example::report();
        report.limits.card = Some("Example GPU".into());
        let report = json(&report);
        assert_eq!(report["limits"]["card"], "Example GPU");
        assert!(report["limits"]["read_bytes_per_second_one_core"].is_null());
        assert_eq!(report["decode_bandwidth_share"], 0.5);
    }

    #[test]
    fn what_was_not_measured_is_null_and_not_zero() {
        let mut report = example::report();
        report.limits.integers = None;
        report.frontiers.iter_mut().for_each(|frontier| frontier.decode.clear());
        let report = json(&report);
        assert!(report["decode_bandwidth_share"].is_null());
        assert!(report["limits"]["integer_peak"].is_null());
    }
}
