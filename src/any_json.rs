//! JSON for property tests, as strange as it may be written: numbers beyond any type, every escape, half surrogate
//! pairs, white space where it is allowed.
//!
//! Invariant: what is made here is valid by RFC 8259, and a value that is read and written again would not be the same.

use proptest::prelude::*;

/// A string with its quotes; it may have half a surrogate pair in it, so not every one is text.
pub(crate) fn string() -> impl Strategy<Value = String> {
    r#""([ -!#-\[\]-~é🦀]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,12}""#
}

/// A value of any type, nested a little.
pub(crate) fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
        string(),
        prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| spaced('[', &list, ']')),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..4).prop_map(|fields| {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(key, value)| format!("\"{key}\": {value}"))
                    .collect();
                spaced('{', &fields, '}')
            }),
        ]
    })
}

fn spaced(open: char, parts: &[String], close: char) -> String {
    format!("{open} {} {close}", parts.join(" ,\t"))
}
