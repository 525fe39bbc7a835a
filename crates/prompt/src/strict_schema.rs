//! The schemas of `strict` tools, as DeepSeek's API rewrites them: every object lists all of its
//! properties as required and takes no others, keywords that sampling cannot enforce are gone, and
//! the members of each node come in a fixed order.

use std::collections::HashSet;

use crate::{
    error::RequestError,
    fields::Fields,
    pyjson::{Object, Value},
};

/// Rewrites the parameters of a strict tool; without any, it takes none.
pub(crate) fn tool_parameters(schema: Option<&Value>, path: &str) -> Result<Value, RequestError> {
    match schema {
        Some(schema) => top(schema, path, Empty::Allowed),
        None => Ok(object_node(Object::default(), None, None)),
    }
}

/// Rewrites the schema of a strict answer.
pub(crate) fn answer(schema: &Value, path: &str) -> Result<Value, RequestError> {
    top(schema, path, Empty::Refused)
}

/// Whether an object may have no properties.
#[derive(Clone, Copy, PartialEq)]
enum Empty {
    Allowed,
    Refused,
}

fn top(schema: &Value, path: &str, empty: Empty) -> Result<Value, RequestError> {
    let rewritten = node(schema, path, empty)?;
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => Ok(rewritten),
        _ => Err(RequestError::field(path, "must be of type `object`")),
    }
}

fn node(schema: &Value, path: &str, empty: Empty) -> Result<Value, RequestError> {
    let fields = Fields::of(schema, path)?;
    let description = fields.optional_text("description")?;
    match fields.raw("type") {
        Some(Value::Array(_)) => return choice_of_types(&fields, description),
        Some(_) => return typed(&fields, empty),
        None => {}
    }
    let mut out = Object::default();
    if fields.raw("anyOf").is_some() {
        let mut choices = Vec::new();
        for (path, choice) in fields.items("anyOf")? {
            choices.push(typed(&Fields::of(choice, path)?, empty)?);
        }
        out.insert("anyOf", Value::Array(choices));
        push_text(&mut out, "description", description);
    } else if fields.raw("$ref").is_some() {
        out.insert("$ref", fields.text("$ref")?.into());
    } else {
        return Err(RequestError::field(path, "needs `type`, `anyOf` or `$ref`"));
    }
    Ok(Value::Object(out))
}

fn choice_of_types(fields: &Fields<'_>, description: Option<&str>) -> Result<Value, RequestError> {
    let mut out = Object::default();
    for (_, kind) in fields.items("type")? {
        if !matches!(kind.as_str(), Some("string" | "number" | "integer" | "boolean" | "null")) {
            return Err(
                fields.error("type", "may list string, number, integer, boolean and null only")
            );
        }
    }
    out.insert("type", fields.required("type")?.clone());
    push_text(&mut out, "description", description);
    Ok(Value::Object(out))
}

/// A node with one type.
fn typed(fields: &Fields<'_>, empty: Empty) -> Result<Value, RequestError> {
    const NUMBER_KEYWORDS: [&str; 7] = [
        "const",
        "default",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    ];
    let description = fields.optional_text("description")?;
    let kind = fields.text("type")?;
    let mut out = Object::from_iter([("type", kind.into())]);
    match kind {
        "object" => return object(fields, description, empty),
        "array" => {
            let items = node(fields.required("items")?, &fields.path_of("items"), Empty::Refused)?;
            out.insert("items", items);
            push_text(&mut out, "description", description);
        }
        "string" => {
            push_text(&mut out, "description", description);
            push_text(&mut out, "pattern", fields.optional_text("pattern")?);
            let format = fields.optional_text("format")?;
            if format
                .is_some_and(|name| !["email", "hostname", "ipv4", "ipv6", "uuid"].contains(&name))
            {
                return Err(fields.error("format", "is not one that strict mode knows"));
            }
            push_text(&mut out, "format", format);
            let choices = fields.items("enum")?;
            if choices.iter().any(|(_, choice)| choice.as_str().is_none()) {
                return Err(fields.error("enum", "must list strings"));
            }
            if let Some(choices) = fields.optional("enum") {
                out.insert("enum", choices.clone());
            }
        }
        "number" | "integer" => {
            push_text(&mut out, "description", description);
            for key in NUMBER_KEYWORDS {
                match fields.optional(key) {
                    None => {}
                    Some(int @ Value::Int(_)) => out.insert(key, int.clone()),
                    Some(float @ Value::Float(_)) if kind == "number" => {
                        out.insert(key, float.clone())
                    }
                    Some(_) => return Err(fields.error(key, format!("must be of type {kind}"))),
                }
            }
        }
        "boolean" | "null" => push_text(&mut out, "description", description),
        other => return Err(fields.error("type", format!("unknown type `{other}`"))),
    }
    Ok(Value::Object(out))
}

fn object(
    fields: &Fields<'_>,
    description: Option<&str>,
    empty: Empty,
) -> Result<Value, RequestError> {
    let properties = nodes(fields, "properties")?.unwrap_or_default();
    if properties.is_empty() && empty == Empty::Refused {
        return Err(fields.error("properties", "must not be empty in a strict schema"));
    }
    let definitions = nodes(fields, "$def")?;
    if fields.optional("required").is_some() {
        let known: HashSet<&str> = properties.iter().map(|(name, _)| name).collect();
        let mut listed = HashSet::new();
        for (path, name) in fields.items("required")? {
            let name =
                name.as_str().ok_or_else(|| RequestError::field(&path, "must be a string"))?;
            if !known.contains(name) || !listed.insert(name) {
                return Err(RequestError::field(
                    path,
                    format!("`{name}` is listed twice or is no property"),
                ));
            }
        }
        if listed.len() < properties.len() {
            return Err(fields.error("required", "must list every property in a strict schema"));
        }
    }
    if fields.flag("additionalProperties")? {
        return Err(fields.error("additionalProperties", "must not be true in a strict schema"));
    }
    Ok(object_node(properties, description, definitions))
}

fn object_node(
    properties: Object,
    description: Option<&str>,
    definitions: Option<Object>,
) -> Value {
    let required = properties.iter().map(|(name, _)| name.into()).collect();
    let mut out = Object::from_iter([
        ("type", Value::from("object")),
        ("properties", Value::Object(properties)),
        ("additionalProperties", Value::Bool(false)),
        ("required", Value::Array(required)),
    ]);
    push_text(&mut out, "description", description);
    if let Some(definitions) = definitions {
        out.insert("$def", Value::Object(definitions));
    }
    Value::Object(out)
}

/// The schemas that `key` maps names to.
fn nodes(fields: &Fields<'_>, key: &str) -> Result<Option<Object>, RequestError> {
    let Some(value) = fields.optional(key) else { return Ok(None) };
    let path = fields.path_of(key);
    let members =
        value.as_object().ok_or_else(|| RequestError::field(&path, "must be an object"))?;
    let rewrite = |(name, schema): (&str, &Value)| {
        Ok((name.to_owned(), node(schema, &format!("{path}.{name}"), Empty::Refused)?))
    };
    members.iter().map(rewrite).collect::<Result<Object, _>>().map(Some)
}

fn push_text(out: &mut Object, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        out.insert(key, text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pyjson::Dialect;

    fn check(schema: &str, expected: Result<&str, &str>) {
        let schema = Value::parse(schema, Dialect::Hosted).expect("valid JSON");
        let found =
            tool_parameters(Some(&schema), "p").map(|schema| schema.to_json(Dialect::Hosted));
        let found = found.map_err(|error| error.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn nodes_are_completed_and_put_in_order() {
        check(
            r#"{"description":"d","properties":{"b":{"maximum":2,"minimum":1.5,"type":"number","x":0},
                "a":{"anyOf":[{"type":"null"},{"enum":["u"],"type":"string"}]},"c":{"type":["null","string"]},
                "l":{"items":{"$ref":"q"},"type":"array"}},"type":"object"}"#,
            Ok(
                r#"{"type": "object", "properties": {"b": {"type": "number", "minimum": 1.5, "maximum": 2}, "a": {"anyOf": [{"type": "null"}, {"type": "string", "enum": ["u"]}]}, "c": {"type": ["null", "string"]}, "l": {"type": "array", "items": {"$ref": "q"}}}, "additionalProperties": false, "required": ["b", "a", "c", "l"], "description": "d"}"#,
            ),
        );
        check(
            r#"{"type":"object"}"#,
            Ok(
                r#"{"type": "object", "properties": {}, "additionalProperties": false, "required": []}"#,
            ),
        );
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        for (schema, error) in [
            (r#"{"type":"string"}"#, "p: must be of type `object`"),
            (
                r#"{"type":"object","properties":{"a":{"type":"object"}}}"#,
                "p.properties.a.properties: must not be empty in a strict schema",
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"null"}},"required":["b"]}"#,
                "p.required[0]: `b` is listed twice or is no property",
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"null"}},"required":[]}"#,
                "p.required: must list every property in a strict schema",
            ),
            (
                r#"{"type":"object","additionalProperties":true}"#,
                "p.additionalProperties: must not be true in a strict schema",
            ),
            (
                r#"{"type":"object","properties":{"a":{}}}"#,
                "p.properties.a: needs `type`, `anyOf` or `$ref`",
            ),
        ] {
            check(schema, Err(error));
        }
    }
}
