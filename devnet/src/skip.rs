//! Tests that need a program which not every machine has.

/// Set where all such programs are installed, as in CI: there nothing may go untested in silence.
const FORBID: &str = "FORBID_SKIPS";

/// Says that a test shows nothing here, since `program` is not installed; the test then returns.
///
/// # Panics
/// Where `FORBID_SKIPS` is set.
#[allow(clippy::print_stderr, reason = "the place for it is the test's output")]
pub fn skip_without(program: &str) {
    assert!(
        std::env::var_os(FORBID).is_none(),
        "{program} is not installed, and {FORBID} is set"
    );
    eprintln!("SKIPPED: {program} is not installed, so this test has shown nothing");
}
