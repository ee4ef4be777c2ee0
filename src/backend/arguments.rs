//! The arguments of a tool's call.

/// Whether arguments, the text of a string or other JSON, say that there are none. That is spelled in many ways: as null,
/// blank, and as an empty list where objects and lists are one type.
pub(super) fn are_none(arguments: &str) -> bool {
    let arguments = arguments.trim();
    let list = arguments
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    matches!(arguments, "" | "null" | r#""""# | r#""null""#)
        || list.is_some_and(|list| list.trim().is_empty())
}
