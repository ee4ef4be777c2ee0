//! The tables of docs/settings.md are those of the program. Each stands between two comments, of which the first names the
//! setting that it begins with; it ends before the one that the next table begins with. So every setting is in one table.

use std::{env, fmt::Write as _, fs};

use pin_sidecar::config::{Fallback, Setting, settings};

use crate::repository::{read, root};

const PAGE: &str = "docs/settings.md";
const REWRITE: &str = "UPDATE_DOCS=1 cargo test --test docs";
const END: &str = "<!-- end -->";

/// The setting that a table begins with, if this line is the comment before it.
fn begins_with(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- settings: ")?.strip_suffix(" -->")
}

/// The page with its tables as they should be.
fn rewritten(page: &str) -> Result<String, String> {
    let all: Vec<&Setting> = settings().collect();
    let place = |name: &str| all.iter().position(|setting| setting.name == name);
    let mut begins = Vec::new();
    for name in page.lines().filter_map(begins_with) {
        begins.push(place(name).ok_or_else(|| format!("there is no setting {name}"))?);
    }
    if begins.first() != Some(&0) || !begins.is_sorted_by(|one, next| one < next) {
        return Err("the tables must begin with the first setting and be in order".to_owned());
    }
    let mut ends = begins.iter().skip(1).copied().chain([all.len()]);
    let mut text = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(text, "{line}");
        let Some(first) = begins_with(line).and_then(place) else {
            continue;
        };
        let after = ends.next().ok_or("a table has no end")?;
        text.push_str(&table(&all[first..after]));
        if !lines.any(|line| line == END) {
            return Err(format!(
                "the table of {} does not end with {END}",
                all[first].name
            ));
        }
        let _ = writeln!(text, "{END}");
    }
    Ok(text)
}

fn table(settings: &[&Setting]) -> String {
    let mut table = "\n| variable | default | meaning |\n|---|---|---|\n".to_owned();
    for setting in settings {
        let default = match setting.default {
            Fallback::Value(text) => format!("`{text}`"),
            Fallback::Required | Fallback::Unset | Fallback::FoundOut(_) => {
                setting.default.to_string()
            }
        };
        let cells = [
            format!("`{}`", setting.name),
            default,
            setting.help.to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table + "\n"
}

/// The lines that one text has and the other has not.
fn difference(is: &str, should_be: &str) -> String {
    let without = |one: &str, other: &str, mark: char| -> String {
        let more = one
            .lines()
            .filter(|line| !other.lines().any(|other| other == *line));
        more.map(|line| format!("{mark} {line}\n")).collect()
    };
    without(is, should_be, '-') + &without(should_be, is, '+')
}

#[test]
fn the_page_lists_every_setting_as_the_program_does() {
    let is = read(PAGE);
    let should_be = rewritten(&is).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    if env::var_os("UPDATE_DOCS").is_some() {
        // At once, since other tests read it meanwhile.
        let new = root().join(PAGE).with_extension("new");
        fs::write(&new, should_be).unwrap();
        fs::rename(&new, root().join(PAGE)).unwrap();
        return;
    }
    assert!(
        is == should_be,
        "{PAGE} differs from the program's own table; write it anew with: {REWRITE}\n{}",
        difference(&is, &should_be)
    );
}

#[test]
fn a_table_that_differs_is_told_line_by_line_and_written_anew() {
    let right = rewritten(&read(PAGE)).unwrap();
    let capacity = "| `PIN_CAPACITY` | `4` |";
    let wrong = right.replace(capacity, "| `PIN_CAPACITY` | `5` |");
    let should_be = rewritten(&wrong).unwrap();
    assert_eq!(should_be, right);
    let told = difference(&wrong, &should_be);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with("- | `PIN_CAPACITY` | `5` |"), "{told}");
    assert!(lines[1].starts_with(&format!("+ {capacity}")), "{told}");
}

#[test]
fn no_setting_can_be_left_out() {
    let right = rewritten(&read(PAGE)).unwrap();
    let without = |line: &str| rewritten(&right.replace(&format!("{line}\n"), "")).unwrap_err();
    assert_eq!(
        without("<!-- settings: PIN_CLIENT_ID -->"),
        "the tables must begin with the first setting and be in order"
    );
    assert_eq!(
        without(END),
        "the table of PIN_CLIENT_ID does not end with <!-- end -->"
    );
    // What another table had goes to the one before it.
    let merged = right.replace("<!-- settings: PIN_API_MODE -->\n", "");
    let merged = rewritten(&merged).unwrap();
    let (_, first) = merged
        .split_once("<!-- settings: PIN_CLIENT_ID -->")
        .unwrap();
    assert!(first.split_once(END).unwrap().0.contains("`PIN_API_MODE`"));
    let renamed = right.replace("settings: PIN_API_MODE", "settings: PIN_NOPE");
    assert_eq!(
        rewritten(&renamed).unwrap_err(),
        "there is no setting PIN_NOPE"
    );
}
