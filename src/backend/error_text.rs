//! What the gateway and the log may read of a backend's failure: the backend's own words, cleaned.
//!
//! Invariant: at most [`MAX_BYTES`], on one line, and nothing that says where the backend is or what lies on its disk:
//! URLs, addresses with a port, IP addresses and absolute paths become `…`, and so does what it was asked with, before anything
//! is cut off. What is no JSON error (a proxy's page) is not quoted at all.

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{fields::fields, halves::text, object::elements};
use crate::transport::Credentials;

/// The longest text of an error that is passed on.
const MAX_BYTES: usize = 512;

/// So much of what was said is looked at, in characters: enough for a text of [`MAX_BYTES`] with long URLs in it. What is
/// cut off in the middle is as private as the whole.
const MAX_LOOKED_AT: usize = 16 * MAX_BYTES;

/// So much of it is read in order to find that many characters, in bytes.
const MAX_READ: usize = 4 * MAX_LOOKED_AT;

/// What stands for something that is the operator's own business.
const HIDDEN: &str = "…";

/// What a body is that is no JSON, where its beginning tells: something between us and the backend may have made it so.
pub(super) fn what_came(body: &[u8]) -> Option<&'static str> {
    match body.trim_ascii_start() {
        // RFC 1952.
        [0x1f, 0x8b, ..] => Some("gzip came, which was not asked for"),
        [b'<', ..] => Some("HTML came"),
        _ => None,
    }
}

/// The words that come with a status other than 2xx.
///
/// # Errors
/// There are none; the status, in words.
pub(super) fn words_of_status(
    status: u16,
    body: &[u8],
    credentials: &Credentials,
) -> Result<String, String> {
    let words = words_in(&String::from_utf8_lossy(body), credentials);
    words.ok_or_else(|| format!("HTTP {status}"))
}

/// The words of a body that tells of an error, in whichever of its fields they are.
pub(super) fn words_in(body: &str, credentials: &Credentials) -> Option<String> {
    let said = fields(body, ["error", "detail", "message"]);
    let mut said = said.into_iter().flatten().flatten();
    said.find_map(|error| words_of(error, credentials))
}

/// The words of an `error` field, as Ollama (`"…"`), OpenAI (`{"message": "…"}`), FastAPI (`[{"msg": "…"}]`) or what is built
/// on that (`{"error": …}` within its `detail`) spells it.
pub(super) fn words_of_error(error: &str, credentials: &Credentials) -> String {
    words_of(error, credentials).unwrap_or_else(|| "an error without words".to_owned())
}

fn words_of(error: &str, credentials: &Credentials) -> Option<String> {
    let field = |json, name| fields(json, [name])?[0];
    let words = match error.as_bytes().first()? {
        b'{' => match field(error, "message") {
            Some(words) => words,
            // Once more, and no deeper.
            None => match field(error, "error")? {
                inner if inner.starts_with('{') => field(inner, "message")?,
                inner => inner,
            },
        },
        b'[' => elements(error)?.find_map(|one| field(one, "msg"))?,
        _ => error,
    };
    let words = credentials.hide_in(&text(words)?, MAX_READ);
    let cleaned = clean(without_echo(&words));
    (!cleaned.is_empty()).then_some(cleaned)
}

/// The words less what of the request they repeat, which may be its prompt: pydantic's errors end with the input (vLLM).
fn without_echo(words: &str) -> &str {
    const ECHOES: [&str; 3] = ["'input':", "\"input\":", "input_value="];
    match ECHOES.iter().filter_map(|echo| words.find(echo)).min() {
        Some(at) => words[..at].trim_end_matches([' ', ',', '[', '{']),
        None => words,
    }
}

fn clean(words: &str) -> String {
    let words = words.trim_start().chars().filter_map(printable);
    let line: String = words.take(MAX_LOOKED_AT).collect();
    let line = without_keys(&line);
    let mut cleaned = String::new();
    let mut rest = line.trim();
    while cleaned.len() < MAX_BYTES && !rest.is_empty() {
        let (piece, len) = next_piece(rest, cleaned.chars().next_back());
        cleaned.push_str(piece);
        rest = &rest[len..];
    }
    let end = (0..=MAX_BYTES)
        .rev()
        .find(|end| cleaned.is_char_boundary(*end))
        .unwrap_or(0);
    cleaned.truncate(end);
    cleaned
}

/// The words less the keys that some servers repeat: what follows the name of a scheme (RFC 6750, RFC 7617), and what looks
/// like OpenAI's own.
fn without_keys(line: &str) -> String {
    let mut is_key = false;
    let hide = |word: &str| {
        let name = word.trim_matches(|c: char| !c.is_alphanumeric());
        // Base64 may have these at an end.
        let key = word.trim_matches(|c: char| !c.is_alphanumeric() && !"+/=-_".contains(c));
        let hidden = is_key || name.starts_with("sk-");
        // The other word is one of many in English.
        is_key = name.eq_ignore_ascii_case("bearer") || name == "Basic";
        if hidden && !name.is_empty() {
            word.replace(key, HIDDEN)
        } else {
            word.to_owned()
        }
    };
    line.split_inclusive(' ').map(hide).collect()
}

/// White space of any kind is a space; other control characters go.
fn printable(c: char) -> Option<char> {
    match c {
        c if c.is_whitespace() => Some(' '),
        c if c.is_control() => None,
        c => Some(c),
    }
}

/// What to write for the beginning of `rest`, and how much of it that is. `before` is what was written last.
fn next_piece(rest: &str, before: Option<char>) -> (&str, usize) {
    let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    if let Some(len) = private_len(rest, word, before) {
        return (HIDDEN, len);
    }
    let len = if word > 0 {
        word
    } else {
        rest.chars().next().map_or(0, char::len_utf8)
    };
    (&rest[..len], len)
}

/// How long the private thing is that `rest`, which begins with `word` bytes of a word, begins with.
fn private_len(rest: &str, word: usize, before: Option<char>) -> Option<usize> {
    let after = &rest[word..];
    let is_path = match word {
        0 => is_absolute(after) && !before.is_some_and(is_word),
        1 => after.starts_with(":\\") || after.starts_with(":/"),
        _ => false,
    };
    if is_path {
        return Some(path_len(rest, before));
    }
    if word > 0 && after.starts_with("://") {
        return Some(extent(rest));
    }
    if !before.is_some_and(is_word)
        && let Some(len) = ipv6_len(rest)
    {
        return Some(len);
    }
    let name = rest[..word].trim_end_matches('.');
    let host = if word > 0 {
        name.len()
    } else {
        bracketed_len(rest)?
    };
    let is_literal = word == 0 || name.parse::<Ipv4Addr>().is_ok();
    (is_literal || has_port(&rest[host..])).then(|| host_len(rest, host))
}

/// Words are what names of hosts and schemes are made of.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+')
}

fn is_absolute(text: &str) -> bool {
    text.starts_with("\\\\")
        || text
            .strip_prefix('/')
            .is_some_and(|path| !path.starts_with(' ') && !path.is_empty())
}

/// The length of an IPv6 address in brackets.
fn bracketed_len(text: &str) -> Option<usize> {
    let end = text.strip_prefix('[')?.find(']')? + 1;
    let address = text[1..end].split('%').next()?;
    address.parse::<Ipv6Addr>().is_ok().then_some(end + 1)
}

/// The length of an IPv6 address without brackets; one without a digit is rather a name of some program's.
fn ipv6_len(text: &str) -> Option<usize> {
    /// Such as `0000:0000:0000:0000:0000:ffff:255.255.255.255`.
    const LONGEST: usize = 45;
    let longest = text
        .bytes()
        .take(LONGEST)
        .take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        .count();
    // The sentence may go on behind it with a colon or a full stop.
    (2..=longest).rev().find(|len| {
        let (address, after) = text.split_at(*len);
        !after.starts_with(char::is_alphanumeric)
            && address.contains(|c: char| c.is_ascii_digit())
            && address.parse::<Ipv6Addr>().is_ok()
    })
}

/// Whether `text` begins with a colon and a port.
fn has_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else {
        return false;
    };
    let digits = port.bytes().take_while(u8::is_ascii_digit).count();
    (1..=5).contains(&digits) && !port[digits..].starts_with(|c: char| c.is_alphanumeric())
}

/// A host of `host` bytes with its port, and the path behind it if there is one.
fn host_len(text: &str, host: usize) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let end = if has_port(&text[host..]) {
        host + 1 + digits(&text[host + 1..])
    } else {
        host
    };
    if text[end..].starts_with('/') {
        end + extent(&text[end..])
    } else {
        end
    }
}

/// A path in quotes goes as far as they do.
fn path_len(text: &str, before: Option<char>) -> usize {
    let quote = before.filter(|c| matches!(c, '"' | '\'' | '`'));
    quote
        .and_then(|quote| text.find(quote))
        .unwrap_or_else(|| spaced_extent(text))
}

/// How far a path goes that is not in quotes. A folder's name may have a space in it (`C:\Users\Ann Zoe\x`), so where
/// the word behind a space has a separator in it, it belongs to the path.
fn spaced_extent(text: &str) -> usize {
    let mut len = extent(text);
    while let Some(next) = text[len..].strip_prefix(' ') {
        let more = extent(next);
        if !next[..more].contains(['/', '\\']) {
            break;
        }
        len += 1 + more;
    }
    len
}

/// How far a URL or a path goes, less the punctuation of the sentence around it.
fn extent(text: &str) -> usize {
    let ends = |c: char| {
        matches!(
            c,
            ' ' | '"' | '\'' | '`' | '<' | '>' | '(' | ')' | ',' | ';'
        )
    };
    let end = text.find(ends).unwrap_or(text.len());
    text[..end]
        .trim_end_matches([':', '.', '!', '?'])
        .len()
        .max(1)
}
