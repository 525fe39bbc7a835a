//! Binding: what is written is read back, and what no model can be is refused by name.

use ds4_gguf::{Gguf, GgufWriter, Value};
use ds4_host::Region;
use ds4_model::{
    Compression, Config, Indexer, Model, ModelError, Rope, Routing, Source,
    catalogue::{self, Kind},
    describe,
};

const F32: u32 = 0;
const I8: u32 = 24;
const I32: u32 = 26;

fn config() -> Config {
    use Compression::{Csa, Hca, None};
    let layers = vec![None, Csa, Hca];
    Config {
        name: "tiny".into(),
        hidden: 8,
        vocab: 5,
        heads: 2,
        head_dim: 8,
        rope: Rope {
            dims: 4,
            base: 10_000.0,
            compressed_base: 160_000.0,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 4,
        o_groups: 2,
        o_rank: 3,
        window: 128,
        indexer: Indexer { heads: 2, dim: 4, top_k: 8 },
        experts: 3,
        experts_used: 2,
        expert_hidden: 6,
        hash_layers: 1,
        routed_scale: 1.5,
        swiglu_limit: vec![10.0, 9.0, 8.0],
        swiglu_limit_shared: vec![7.0; 3],
        streams: 4,
        sinkhorn_iterations: 20,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 4096,
        layers,
    }
}

/// A tiny model in memory, and what to change about it.
#[derive(Default)]
struct Changes<'a> {
    /// Keys to replace, or to leave out.
    keys: &'a [(&'a str, Option<Value<'a>>)],
    /// Tensors to leave out.
    without: &'a [&'a str],
    /// Tensors to add.
    with: &'a [(&'a str, &'a [u64], u32)],
    /// A tensor to give another shape and type.
    reshape: Option<(&'a str, &'a [u64], u32)>,
    /// A tensor to fill with another byte.
    fill: Option<(&'a str, u8)>,
}

fn build(config: &Config, changes: &Changes) -> Gguf {
    let mut plain = GgufWriter::new("plain");
    describe(config, &mut plain);
    let plain = plain.begin(Vec::new()).unwrap().finish().unwrap();
    let plain = Gguf::from_region(Region::from_vec(plain), "plain").unwrap();

    let mut writer = GgufWriter::new("tiny.gguf");
    for (key, value) in plain.meta().iter() {
        match changes.keys.iter().find(|(name, _)| *name == key) {
            None => writer.put_value(key, value),
            Some((_, Some(value))) => writer.put_value(key, *value),
            Some((_, None)) => {}
        }
    }
    let mut tensors: Vec<(String, Vec<u64>, u32)> = Vec::new();
    for (entry, layer, (rows, cols)) in catalogue::tensors(config) {
        let name = entry.gguf_name(layer);
        let mut dims = vec![cols as u64, rows as u64];
        if entry.kind == Kind::Experts {
            dims.push(config.experts as u64);
        }
        let mut type_id = if entry.kind == Kind::Table { I32 } else { F32 };
        if let Some((changed, shape, ty)) = changes.reshape
            && changed == name
        {
            (dims, type_id) = (shape.to_vec(), ty);
        }
        if !changes.without.contains(&name.as_str()) {
            tensors.push((name, dims, type_id));
        }
    }
    tensors
        .extend(changes.with.iter().map(|(name, dims, ty)| (name.to_string(), dims.to_vec(), *ty)));
    for (name, dims, type_id) in &tensors {
        writer.tensor(name, dims, *type_id).unwrap();
    }
    let mut stream = writer.begin(Vec::new()).unwrap();
    for (name, dims, type_id) in &tensors {
        let size = dims.iter().product::<u64>() as usize * if *type_id == I8 { 1 } else { 4 };
        let byte = changes.fill.filter(|(filled, _)| filled == name).map_or(0, |(_, byte)| byte);
        stream.write(name, [vec![byte; size]]).unwrap();
    }
    let bytes = stream.finish().unwrap();
    Gguf::from_region(Region::from_vec(bytes), "tiny.gguf").unwrap()
}

fn bind(changes: &Changes) -> Result<Model, ModelError> {
    Model::bind(&Source::from_gguf(build(&config(), changes))?)
}

/// The one line that a person would see.
fn refusal(changes: &Changes) -> String {
    let message = bind(changes).expect_err("this must be refused").to_string();
    assert!(message.starts_with("tiny.gguf: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn a_description_reads_back_equal() {
    let model = bind(&Changes::default()).unwrap();
    assert_eq!(model.config, config());
    assert!(matches!(&model.weights.layers[0].moe.routing, Routing::Hash(ids) if ids.len() == 10));
    assert!(matches!(&model.weights.layers[1].moe.routing, Routing::Scores(_)));
    let audit = Source::from_gguf(build(&config(), &Changes::default())).unwrap().audit(&config());
    assert!(audit.missing.is_empty() && audit.unused.is_empty(), "{audit:?}");
}

#[test]
fn keys_that_no_model_can_have_are_named() {
    let check = |key: &str, value: Option<Value>, reason: &str| {
        let full = format!("deepseek4.{key}");
        let message = refusal(&Changes { keys: &[(&full, value)], ..Changes::default() });
        assert!(message.contains(&full) && message.contains(reason), "{message}");
    };
    check("embedding_length", None, "missing");
    check("embedding_length", Some(Value::U32(0)), "outside 1");
    check("embedding_length", Some(Value::U64(u64::MAX)), "outside 1");
    check("attention.head_count", Some(Value::I32(-2)), "integer");
    check("attention.head_count", Some(Value::Str(b"two")), "integer");
    check("attention.head_count_kv", Some(Value::U32(2)), "has 1");
    check("attention.value_length", Some(Value::U32(4)), "has 8");
    check("attention.output_group_count", Some(Value::U32(3)), "do not divide");
    check("attention.indexer.key_length", Some(Value::U32(12)), "power of two");
    check("attention.indexer.key_length", Some(Value::U32(2)), "rotary");
    check("rope.dimension_count", Some(Value::U32(3)), "odd");
    check("rope.dimension_count", Some(Value::U32(16)), "outside");
    check("rope.freq_base", Some(Value::F32(f32::NAN)), "not finite");
    check("rope.freq_base", Some(Value::F32(1.0)), "above one");
    check("rope.scaling.factor", Some(Value::F32(0.0)), "above zero");
    check("expert_used_count", Some(Value::U32(4)), "outside 1 to 3");
    check("expert_shared_count", Some(Value::U32(2)), "has 1");
    check("expert_gating_func", Some(Value::U32(2)), "has 4");
    check("expert_weights_norm", Some(Value::Bool(false)), "normalised");
    check("hash_layer_count", Some(Value::U32(4)), "outside 0 to 3");
    check("hyper_connection.epsilon", Some(Value::F32(-1.0)), "above zero");
    check("attention.compress_ratios", Some(Value::U32(4)), "array");
    check("swiglu_clamp_exp", None, "missing");
}

#[test]
fn optional_keys_have_the_published_values() {
    let keys = ["rope.scaling.factor", "vocab_size", "expert_gating_func", "swiglu_clamp_shexp"];
    let keys = keys.map(|key| format!("deepseek4.{key}"));
    let keys: Vec<_> = keys.iter().map(|key| (key.as_str(), None)).collect();
    let model = bind(&Changes { keys: &keys, ..Changes::default() }).unwrap();
    assert_eq!(model.config.rope.factor, 16.0);
    assert_eq!(model.config.vocab, 5);
    assert_eq!(model.config.swiglu_limit_shared, model.config.swiglu_limit);
}

#[test]
fn other_architectures_are_refused() {
    let keys = &[("general.architecture", Some(Value::Str(b"llama")))];
    let message = refusal(&Changes { keys, ..Changes::default() });
    assert!(message.contains("llama") && message.contains("deepseek4"), "{message}");
    let megabyte = vec![b'x'; 1 << 20];
    let keys = &[("general.architecture", Some(Value::Str(&megabyte)))];
    assert!(refusal(&Changes { keys, ..Changes::default() }).len() < 400);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let name = "blk.1.attn_q_a.weight";
    let message = refusal(&Changes { without: &[name], ..Changes::default() });
    assert!(message.contains(name) && message.contains("missing"), "{message}");

    let reshape = Some((name, [4, 8].as_slice(), F32));
    let message = refusal(&Changes { reshape, ..Changes::default() });
    assert!(message.contains(name) && message.contains("[4, 8] needed"), "{message}");

    let reshape = Some((name, [8, 4].as_slice(), I8));
    let message = refusal(&Changes { reshape, ..Changes::default() });
    assert!(message.contains(name) && message.contains("I8"), "{message}");

    let fill = Some(("blk.2.ffn_norm.weight", 0xff));
    let message = refusal(&Changes { fill, ..Changes::default() });
    assert!(message.contains("blk.2.ffn_norm.weight") && message.contains("NaN"), "{message}");

    let fill = Some(("blk.0.ffn_gate_tid2eid.weight", 1));
    let message = refusal(&Changes { fill, ..Changes::default() });
    assert!(message.contains("tid2eid") && message.contains("no expert"), "{message}");
}

#[test]
fn damaged_matrices_are_found_by_a_walk() {
    let fill = Some(("blk.1.ffn_up_exps.weight", 0xff));
    let model = bind(&Changes { fill, ..Changes::default() }).unwrap();
    let damage = model.weights.matrices().find_map(|matrix| matrix.damage()).unwrap();
    assert_eq!((damage.tensor.as_str(), damage.offset), ("blk.1.ffn_up_exps.weight[0]", 0));
}

#[test]
fn a_missing_bias_is_zero() {
    let without = &["blk.1.exp_probs_b.bias"];
    let model = bind(&Changes { without, ..Changes::default() }).unwrap();
    assert!(matches!(&model.weights.layers[1].moe.routing, Routing::Scores(b) if b == &[0.0; 3]));
}

#[test]
fn a_token_predictor_behind_the_layers_is_left_out() {
    let keys = &[
        ("deepseek4.block_count", Some(Value::U32(4))),
        ("deepseek4.nextn_predict_layers", Some(Value::U32(1))),
    ];
    let with = &[("blk.3.nextn.eh_proj.weight", [16, 8].as_slice(), F32)];
    let model = bind(&Changes { keys, with, ..Changes::default() }).unwrap();
    assert_eq!(model.config.layers.len(), 3);
}

#[test]
fn fingerprints_tell_models_apart_but_not_names() {
    let fingerprint = |changes: &Changes| bind(changes).unwrap().fingerprint;
    let plain = fingerprint(&Changes::default());
    let renamed = &[("general.name", Some(Value::Str(b"other")))];
    assert_eq!(plain, fingerprint(&Changes { keys: renamed, ..Changes::default() }));
    let scaled = &[("deepseek4.expert_weights_scale", Some(Value::F32(2.5)))];
    assert_ne!(plain, fingerprint(&Changes { keys: scaled, ..Changes::default() }));
    let fill = Some(("blk.2.ffn_down_exps.weight", 1));
    assert_ne!(plain, fingerprint(&Changes { fill, ..Changes::default() }));
}
