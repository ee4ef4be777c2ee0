//! Calls of tools, put together from their fragments.
//!
//! Invariant: a fragment goes to the call of its index, or of its id where it has no index, or to the last one where it has
//! neither; and a call's id and name are the first that were given.

use crate::backend::{
    fields::fields,
    halves::{Half, text},
    object::{count, elements},
};

/// The calls of one answer, in the order in which they began.
#[derive(Default)]
pub(super) struct Calls(Vec<Call>);

#[derive(Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    half: Half,
}

/// A fragment of a call.
struct Fragment<'a> {
    index: Option<u64>,
    id: String,
    name: String,
    /// As they are written: text, or an object where a server gives all of them at once.
    arguments: Option<&'a str>,
}

impl<'a> Fragment<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let [index, id, function] = fields(json, ["index", "id", "function"])?;
        let function = function.and_then(|function| fields(function, ["name", "arguments"]));
        let [name, arguments] = function.unwrap_or_default();
        let said = |json: Option<&str>| json.and_then(text).unwrap_or_default().into_owned();
        Some(Self {
            index: index.and_then(count),
            id: said(id),
            name: said(name),
            arguments,
        })
    }
}

impl Calls {
    /// Adds the fragments of a list. Gives how many bytes more are kept; none where there was nothing in them.
    pub(super) fn add(&mut self, list: &str) -> usize {
        let fragments = elements(list).into_iter().flatten();
        let added = fragments.filter_map(Fragment::read).map(|fragment| {
            let call = self.call_of(&fragment);
            call.add(fragment)
        });
        added.sum()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them as one JSON list, in OpenAI's shape; none that have no name.
    pub(super) fn to_json(&self) -> String {
        let named = self.0.iter().filter(|call| !call.name.is_empty());
        let calls: Vec<_> = named.map(Call::to_json).collect();
        serde_json::Value::from(calls).to_string()
    }

    fn call_of(&mut self, fragment: &Fragment<'_>) -> &mut Call {
        let place = match fragment.index {
            Some(_) => self.0.iter().rposition(|call| call.index == fragment.index),
            None if fragment.id.is_empty() => self.0.len().checked_sub(1),
            None => self.0.iter().rposition(|call| call.id == fragment.id),
        };
        let place = place.filter(|place| !self.0[*place].is_another(fragment));
        let place = place.unwrap_or_else(|| {
            self.0.push(Call {
                index: fragment.index,
                ..Call::default()
            });
            self.0.len() - 1
        });
        &mut self.0[place]
    }
}

impl Call {
    /// Whether the fragment begins a call of its own all the same. Some servers give every call the same index, or none and no
    /// id: then a name is what begins one.
    fn is_another(&self, fragment: &Fragment<'_>) -> bool {
        let is_named_again = !self.name.is_empty() && !fragment.name.is_empty();
        let has_no_place = fragment.index.is_none() && fragment.id.is_empty();
        let has_another_id =
            !self.id.is_empty() && !fragment.id.is_empty() && self.id != fragment.id;
        is_named_again && (has_no_place || has_another_id)
    }

    fn add(&mut self, fragment: Fragment<'_>) -> usize {
        let before = self.bytes();
        if self.id.is_empty() {
            self.id = fragment.id;
        }
        if self.name.is_empty() {
            self.name = fragment.name;
        }
        match fragment.arguments.map(|json| (json, self.half.join(json))) {
            Some((_, Some(piece))) => self.arguments.push_str(&piece),
            Some((json, None)) => self.arguments.push_str(json),
            None => {}
        }
        self.bytes() - before
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.name.len() + self.arguments.len()
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn calls(deltas: &[Value]) -> Value {
        let mut calls = Calls::default();
        for delta in deltas {
            calls.add(&delta.to_string());
        }
        calls.to_json().parse().unwrap_or_default()
    }

    fn call(id: &str, name: &str, arguments: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    #[test]
    fn fragments_of_a_call_are_put_together_by_their_index_wherever_that_begins() {
        for first in [0, 1, 7] {
            let whole = calls(&[
                json!([{"index": first, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}]),
                json!([{"index": first + 1, "id": "b", "function": {"name": "g"}}]),
                json!([{"index": first, "function": {"arguments": "\"x\""}}, {"index": first + 1, "function": {"arguments": "{"}}]),
                json!([{"index": first + 1, "id": "b", "function": {"name": "", "arguments": "}"}}]),
                json!([{"index": first, "id": null, "function": {"name": null, "arguments": ":1}"}}]),
            ]);
            assert_eq!(
                whole,
                json!([call("a", "f", r#"{"x":1}"#), call("b", "g", "{}")])
            );
        }
    }

    #[test]
    fn fragments_without_an_index_are_put_together_by_their_id_or_follow_the_last() {
        let whole = calls(&[
            json!([{"id": "a", "function": {"name": "f", "arguments": "{"}}]),
            json!([{"function": {"arguments": "}"}}]),
            json!([{"id": "b", "function": {"name": "g", "arguments": "["}}]),
            json!([{"id": "a", "function": {"name": "f", "arguments": " "}}]),
            json!([{"id": "b", "function": {"arguments": "]"}}]),
        ]);
        assert_eq!(whole, json!([call("a", "f", "{} "), call("b", "g", "[]")]));
    }

    #[test]
    fn a_call_may_be_whole_in_one_delta_and_its_arguments_an_object_or_null() {
        let whole = calls(&[json!([
            {"function": {"name": "f", "arguments": {"x": 1}}},
            {"function": {"name": "f", "arguments": null}},
        ])]);
        assert_eq!(
            whole,
            json!([call("", "f", r#"{"x":1}"#), call("", "f", "")])
        );
    }

    #[test]
    fn calls_that_all_have_one_index_are_told_apart_by_their_ids() {
        let whole = calls(&[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]),
            json!([{"index": 0, "id": "b", "function": {"name": "f", "arguments": "[]"}}]),
        ]);
        assert_eq!(whole, json!([call("a", "f", "{}"), call("b", "f", "[]")]));
    }

    #[test]
    fn the_name_may_come_before_the_id_and_after_an_empty_one() {
        let whole = calls(&[
            json!([{"index": 0, "function": {"name": ""}}]),
            json!([{"index": 0, "function": {"name": "f"}}]),
            json!([{"index": 0, "id": "a", "function": {"arguments": "{}"}}]),
        ]);
        assert_eq!(whole, json!([call("a", "f", "{}")]));
    }

    #[test]
    fn what_has_no_name_is_no_call() {
        let whole = calls(&[json!([{"index": 0, "function": {"arguments": "{}"}}, 7, null, {}])]);
        assert_eq!(whole, json!([]));
    }

    #[test]
    fn what_is_kept_is_counted() {
        let mut calls = Calls::default();
        assert_eq!(
            calls.add(r#"[{"id":"ab","function":{"name":"f","arguments":"{}"}}]"#),
            5
        );
        assert_eq!(
            calls.add(r#"[{"id":"ab","function":{"name":"f","arguments":"1"}}]"#),
            1
        );
        assert_eq!(calls.add(r#"[{"id":"ab"}]"#), 0);
        assert_eq!(calls.add("null"), 0);
    }
}
