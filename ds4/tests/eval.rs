//! `ds4 eval` on a model that knows nothing, which must not pass for one that does.

mod program;

use program::ds4;
use serde_json::Value;

const GROUPS: [&str; 6] =
    ["self", "arithmetic", "tools_single", "tools_multi", "retrieval_8k", "json"];

fn scores(args: &[&str]) -> Value {
    let run =
        ds4(&[&["eval", "--suite", "nano", "--limit", "1", "--json", "-"], args].concat()).good();
    serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}", run.out))
}

#[test]
fn scores_have_the_promised_form() {
    // Without room for the long texts, which are only slow here.
    for (args, rounding) in
        [(&["--ctx", "4096"][..], "official"), (&["--ctx", "4096", "--plain"], "plain")]
    {
        let json = scores(args);
        assert_eq!(json["rounding"], rounding);
        assert_eq!(json["suite"], "nano");
        let groups = json["groups"].as_object().unwrap();
        assert_eq!(groups.keys().collect::<Vec<_>>(), GROUPS);
        for (name, group) in groups {
            assert_eq!((&group["n"], &group["score"]), (&1.into(), &Value::from(0.0)), "{name}");
            let failed = &group["failed"][0];
            let needs_room =
                failed["why"].as_str().is_some_and(|why| why.contains("needs a context"));
            assert_eq!(needs_room, name == "retrieval_8k", "{failed}");
            assert!(failed["id"].as_str().is_some_and(|id| id.starts_with(name)), "{failed}");
            assert!(failed["why"].as_str().is_some_and(|why| !why.is_empty()), "{failed}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    ds4(&["eval", "--suite", "exam"]).bad(2, "--suite: `exam` is no suite, there is nano");
    ds4(&["eval", "--limit", "0"]).bad(2, "--limit: `0`");
    ds4(&["eval", "--temp", "1"]).bad(2, "--temp: not a flag of `eval`");
}
