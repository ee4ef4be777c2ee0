//! Tool calls as they come in fragments, of each kind that was met. One call is `f` with `{"x":1}`, a second one `g` with
//! `{"y":2}`.

use super::{
    fault::Fixture,
    fixtures::{chunk, done, usage},
};

/// A delta of tool calls.
fn calls(calls: &str) -> String {
    chunk(&format!(r#"{{"tool_calls":[{calls}]}}"#), "null")
}

fn calling(deltas: &[&str], finish: &str) -> Fixture {
    let mut events: Vec<_> = deltas.iter().map(|delta| calls(delta)).collect();
    events.extend([chunk("{}", finish), usage(), done()]);
    Fixture::events(events)
}

impl Fixture {
    /// Fragments of a call with an index, as llama-server sends them.
    pub fn call() -> Self {
        calling(
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{"}}"#,
                r#"{"index":0,"function":{"arguments":"\"x\""}}"#,
                r#"{"index":0,"function":{"arguments":":1}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// The same without an index: the id comes again with each fragment.
    pub fn call_without_index() -> Self {
        calling(
            &[
                r#"{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}"#,
                r#"{"id":"a","function":{"arguments":":1}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// The same without an index, the id only at the beginning.
    pub fn call_without_index_or_id() -> Self {
        calling(
            &[
                r#"{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}"#,
                r#"{"function":{"arguments":":1}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// The index begins with 1.
    pub fn call_from_index_1() -> Self {
        calling(
            &[
                r#"{"index":1,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}"#,
                r#"{"index":1,"function":{"arguments":":1}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// The name first, the id later, then arguments; empty and null names in between.
    pub fn call_name_first() -> Self {
        calling(
            &[
                r#"{"index":0,"type":"function","function":{"name":"f"}}"#,
                r#"{"index":0,"id":"a","function":{"name":"","arguments":"{\"x\""}}"#,
                r#"{"index":0,"id":"","function":{"name":null,"arguments":":1}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// A whole call in one delta.
    pub fn whole_call() -> Self {
        calling(
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// Two calls in one delta.
    pub fn two_calls_in_one_delta() -> Self {
        calling(
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{\"y\":2}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// Fragments of two calls in turn.
    pub fn interleaved_calls() -> Self {
        calling(
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}"#,
                r#"{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{\"y\""}}"#,
                r#"{"index":0,"function":{"arguments":":1}"}}"#,
                r#"{"index":1,"function":{"arguments":":2}"}}"#,
            ],
            "\"tool_calls\"",
        )
    }

    /// A call whose arguments are null.
    pub fn call_with_null_arguments() -> Self {
        calling(
            &[r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":null}}"#],
            "\"tool_calls\"",
        )
    }

    /// A call, and `finish_reason` `stop`.
    pub fn call_that_stops() -> Self {
        calling(
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}"#,
            ],
            "\"stop\"",
        )
    }

    /// A call without an id.
    pub fn call_without_id() -> Self {
        calling(
            &[r#"{"index":0,"type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}"#],
            "\"tool_calls\"",
        )
    }
}
