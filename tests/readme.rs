//! The README's table of settings says what the program does.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeMap, fs};

use pin_sidecar::config::{Fallback, Setting, settings};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// The beginning of a setting's row; its meaning follows, in the README's own words.
fn row(setting: &Setting) -> String {
    format!("| `{}` | {} |", setting.name, default_cell(setting))
}

fn default_cell(setting: &Setting) -> String {
    match setting.default {
        Fallback::Value(text) => format!("`{text}`"),
        Fallback::Required | Fallback::Unset | Fallback::FoundOut(_) => setting.default.to_string(),
    }
}

/// The rows of settings, whose first cell is a name and nothing else: the line, by the setting's name.
fn rows(readme: &str) -> BTreeMap<&str, &str> {
    let name = |line| {
        let cell = str::strip_prefix(line, "| `")?.split_once("` |")?.0;
        let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_setting = cell.starts_with("PIN_") || cell.ends_with("_PROXY");
        (is_setting && cell.chars().all(in_name)).then_some(cell)
    };
    let rows = readme.lines().filter_map(|line| Some((name(line)?, line)));
    rows.collect()
}

/// What there is to correct, a sentence each.
fn corrections(readme: &str) -> Vec<String> {
    let mut rows = rows(readme);
    let mut corrections = Vec::new();
    for setting in settings() {
        let wanted = row(setting);
        match rows.remove(setting.name) {
            None => corrections.push(format!("a row is missing: {wanted} {} |", setting.help)),
            Some(found) if !found.starts_with(&wanted) => {
                corrections.push(format!("a row must begin with {wanted} but is {found}"));
            }
            Some(found) if found[wanted.len()..].trim_matches([' ', '|']).is_empty() => {
                corrections.push(format!("a row has no meaning: {found}"));
            }
            Some(_) => {}
        }
    }
    corrections.extend(
        rows.values()
            .map(|row| format!("there is no such setting: {row}")),
    );
    corrections
}

#[test]
fn readme_lists_every_setting_with_its_default() {
    let readme = fs::read_to_string(README).expect("README.md cannot be read");
    let corrections = corrections(&readme);
    assert!(
        corrections.is_empty(),
        "README.md:\n{}",
        corrections.join("\n")
    );
}

#[test]
fn a_table_that_differs_is_told_with_the_row_as_it_should_be() {
    let right: Vec<_> = settings()
        .map(|setting| format!("{} {} |", row(setting), setting.help))
        .collect();
    assert_eq!(corrections(&right.join("\n")), [""; 0]);

    let wrong = right
        .join("\n")
        .replace("| `PIN_CAPACITY` | `4` |", "| `PIN_CAPACITY` | `5` |");
    let told = corrections(&wrong);
    assert!(
        told[0].starts_with(
            "a row must begin with | `PIN_CAPACITY` | `4` | but is | `PIN_CAPACITY` | `5` |"
        ),
        "{told:?}"
    );

    let told = corrections(&right[1..].join("\n"));
    assert!(
        told[0].starts_with("a row is missing: | `PIN_CLIENT_ID` | required |"),
        "{told:?}"
    );

    let more = format!("{}\n| `PIN_NOPE` | unset | nothing |", right.join("\n"));
    assert_eq!(
        corrections(&more),
        ["there is no such setting: | `PIN_NOPE` | unset | nothing |"]
    );
}
