//! Tests that need a program which not every machine has.

/// Set where all such programs are installed, as in CI: there nothing may go untested in silence.
const FORBID: &str = "FORBID_SKIPS";

/// Words, with blanks between them. A test that says it lacks something with one of them in its name may skip itself all the
/// same: it runs at another time, or that thing cannot be had.
const EXPECTED: &str = "EXPECTED_SKIP";

/// Says that a test shows nothing here, since `program` is not installed; the test then returns.
///
/// # Panics
/// Where `FORBID_SKIPS` is set, unless `EXPECTED_SKIP` has a word for this skip.
#[allow(clippy::print_stderr, reason = "the place for it is the test's output")]
pub fn skip_without(program: &str) {
    let is_expected = std::env::var(EXPECTED)
        .is_ok_and(|words| words.split_whitespace().any(|word| program.contains(word)));
    assert!(
        is_expected || std::env::var_os(FORBID).is_none(),
        "{program} is not installed, and {FORBID} is set"
    );
    eprintln!("SKIPPED: {program} is not installed, so this test has shown nothing");
}
