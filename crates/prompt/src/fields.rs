//! Typed access to the members of a JSON object, with the path of the member in every error.

use crate::{
    error::RequestError,
    pyjson::{Object, Value},
};

/// An object and where in the document it is.
pub(crate) struct Fields<'a> {
    members: &'a Object,
    path: String,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(
        value: &'a Value,
        path: impl Into<String>,
    ) -> Result<Fields<'a>, RequestError> {
        let path = path.into();
        match value.as_object() {
            Some(members) => Ok(Fields { members, path }),
            None => Err(RequestError::field(path, "must be an object")),
        }
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn error(&self, key: &str, problem: impl Into<String>) -> RequestError {
        RequestError::field(self.path_of(key), problem)
    }

    /// The member as it is; `None` if it is missing.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.members.get(key)
    }

    /// The member; `None` if it is missing or null.
    pub(crate) fn optional(&self, key: &str) -> Option<&'a Value> {
        self.raw(key).filter(|value| **value != Value::Null)
    }

    pub(crate) fn required(&self, key: &str) -> Result<&'a Value, RequestError> {
        self.raw(key).ok_or_else(|| self.error(key, "is missing"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&'a str, RequestError> {
        self.required(key)?.as_str().ok_or_else(|| self.error(key, "must be a string"))
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, RequestError> {
        match self.optional(key) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => Err(self.error(key, "must be a string")),
            },
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool, RequestError> {
        match self.optional(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.error(key, "must be true or false")),
        }
    }

    /// The items of an array, none if it is missing or null, each with its path.
    pub(crate) fn items(&self, key: &str) -> Result<Vec<(String, &'a Value)>, RequestError> {
        let items = match self.optional(key) {
            None => &[],
            Some(value) => value.as_array().ok_or_else(|| self.error(key, "must be an array"))?,
        };
        let path = self.path_of(key);
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, item)| (format!("{path}[{index}]"), item))
            .collect())
    }

    pub(crate) fn object(&self, key: &str) -> Result<Fields<'a>, RequestError> {
        Fields::of(self.required(key)?, self.path_of(key))
    }
}
