//! Names of hosts, as an operator lists them.
//!
//! Invariant: each is a name that DNS could have, in lower case, without a port.

use std::fmt;

use super::{error::Invalid, field::Value, plain::Blanks};

/// Names in the order given.
pub(super) struct HostNames(pub(super) Vec<String>);

impl Value for HostNames {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        text.split(',')
            .map(host_name)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

fn host_name(written: &str) -> Result<String, Invalid> {
    let name = written.trim().to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(name);
    }
    Err(Invalid::value(
        written.trim(),
        "is not a host's name; write it alone, without scheme, port and path, such as gpu.tail1234.ts.net",
    ))
}
