//! Numbers that JSON does not have and some servers write all the same, as log probabilities: `NaN`, `Infinity`.
//!
//! Invariant: what stands in a string stays.

/// The same with a null in place of each; `None` if there is none.
pub(super) fn without_odd_numbers(json: &str) -> Option<String> {
    const ODD: [&str; 5] = ["NaN", "-NaN", "Infinity", "-Infinity", "+Infinity"];
    let (mut mended, mut kept, mut at) = (String::new(), 0, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'N' | b'I' | b'-' | b'+' if !is_text => {
                if let Some(odd) = ODD.iter().find(|odd| json[at..].starts_with(**odd)) {
                    mended.push_str(&json[kept..at]);
                    mended.push_str("null");
                    at += odd.len();
                    kept = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    mended.push_str(&json[kept..]);
    (kept > 0).then_some(mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_numbers_become_null_outside_of_text() {
        for (given, mended) in [
            (
                r#"{"a":NaN,"b":[-Infinity,1]}"#,
                Some(r#"{"a":null,"b":[null,1]}"#),
            ),
            (r#"{"a":"NaN \" Infinity","b":-1}"#, None),
            (r#"{"é":"\\","b": NaN }"#, Some(r#"{"é":"\\","b": null }"#)),
            ("", None),
        ] {
            assert_eq!(without_odd_numbers(given).as_deref(), mended, "{given}");
        }
    }
}
