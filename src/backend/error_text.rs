//! What the gateway and the log may read of a backend's failure: the backend's own words, cleaned.
//!
//! Invariant: at most [`MAX_BYTES`], on one line, and nothing that says where the backend is or what lies on its disk:
//! URLs, addresses with a port, IP addresses and absolute paths become `…`. What is no JSON error (a proxy's
//! page) is not quoted at all.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{fields::fields, halves::text, object::elements};

/// The longest text of an error that is passed on.
const MAX_BYTES: usize = 512;

/// So much of what was said is looked at, in characters: enough for a text of [`MAX_BYTES`] with long URLs in it. What is
/// cut off in the middle is as private as the whole.
const MAX_LOOKED_AT: usize = 16 * MAX_BYTES;

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
pub(super) fn words_of_status(status: u16, body: &[u8]) -> String {
    words_in(&String::from_utf8_lossy(body)).unwrap_or_else(|| format!("HTTP {status}"))
}

/// The words of a body that tells of an error, in whichever of its fields they are.
pub(super) fn words_in(body: &str) -> Option<String> {
    let said = fields(body, ["error", "detail", "message"]);
    let mut said = said.into_iter().flatten().flatten();
    said.find_map(words_of)
}

/// The words of a body that is plain text, and neither JSON nor a page.
pub(super) fn plain_words(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_markup = text.starts_with(['<', '{', '[', '"']);
    if is_markup || text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let cleaned = clean(text);
    (!cleaned.is_empty()).then_some(cleaned)
}

/// The words of an `error` field, as Ollama (`"…"`), OpenAI (`{"message": "…"}`), FastAPI (`[{"msg": "…"}]`) or what is built
/// on that (`{"error": …}` within its `detail`) spells it.
pub(super) fn words_of_error(error: &str) -> String {
    words_of(error).unwrap_or_else(|| "an error without words".to_owned())
}

fn words_of(error: &str) -> Option<String> {
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
    let cleaned = clean(without_echo(&text(words)?));
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
        let hidden = is_key || name.starts_with("sk-");
        // The other word is one of many in English.
        is_key = name.eq_ignore_ascii_case("bearer") || name == "Basic";
        if hidden && !name.is_empty() {
            word.replace(name, HIDDEN)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::protocol::{Code, Failure};

    fn text_of(words: String) -> String {
        Failure::new(Code::Backend, words).text()
    }

    fn sentence(status: u16, body: impl AsRef<[u8]>) -> String {
        text_of(words_of_status(status, body.as_ref()))
    }

    #[test]
    fn the_backends_own_words_are_passed_on() {
        for (body, text) in [
            (
                r#"{"error":"model 'nope' not found"}"#,
                "backend: model 'nope' not found",
            ),
            (
                r#"{"error":"\"tiny\" does not support thinking"}"#,
                "backend: \"tiny\" does not support thinking",
            ),
            (
                r#"{"error":"model 'llama3.2:1b' not found"}"#,
                "backend: model 'llama3.2:1b' not found",
            ),
            (
                r#"{"error":"option \"num_predict\" must be of type integer"}"#,
                "backend: option \"num_predict\" must be of type integer",
            ),
            (
                r#"{"error":"registry.ollama.ai/library/tiny:latest does not support tools"}"#,
                "backend: registry.ollama.ai/library/tiny:latest does not support tools",
            ),
            (
                r#"{"error":{"message":"no such model","type":"api_error","param":null,"code":null}}"#,
                "backend: no such model",
            ),
            (r#"{"detail":"Not allowed"}"#, "backend: Not allowed"),
            (
                r#"{"detail":[{"loc":["body"]},{"msg":"field required"},{"msg":"x"}]}"#,
                "backend: field required",
            ),
            (
                r#"{"object":"error","message":"too long"}"#,
                "backend: too long",
            ),
            (
                r#"{"error":{"message":"1 validation error:\n  {'type': 'float_parsing', 'msg': 'not a number', 'input': 'my secret'}"}}"#,
                "backend: 1 validation error:   {'type': 'float_parsing', 'msg': 'not a number'",
            ),
            (
                r#"{"message":"Input should be a string [type=string_type, input_value=['my secret'], input_type=list]"}"#,
                "backend: Input should be a string [type=string_type",
            ),
            (
                r#"{"detail":{"error":{"message":"no such voice","code":1}}}"#,
                "backend: no such voice",
            ),
            (r#"{"detail":{"error":"busy"}}"#, "backend: busy"),
            (
                r#"{"detail":{"error":{"x":1}},"message":"c"}"#,
                "backend: c",
            ),
            (
                r#"{"message":"c","detail":"b","error":{"message":"a"}}"#,
                "backend: a",
            ),
            (
                r#"{"message":"c","detail":[],"error":{"code":1}}"#,
                "backend: c",
            ),
        ] {
            assert_eq!(sentence(500, body), text);
        }
    }

    #[test]
    fn a_character_that_is_none_takes_no_word_with_it() {
        for body in [
            &br#"{"error":"bad \ud83d thing"}"#[..],
            br#"{"error":{"message":"bad \ud83d thing"},"x\ud83d":1}"#,
            b"{\"error\":\"bad \xe9 thing\"}",
        ] {
            assert_eq!(sentence(400, body), "backend: bad \u{fffd} thing");
        }
    }

    #[test]
    fn a_body_that_is_no_error_is_only_its_status() {
        for body in [
            "",
            "<html>bad gateway at 10.0.0.1</html>",
            "{}",
            "[]",
            "null",
            r#""x""#,
            r#"{"error":null}"#,
            r#"{"detail":[{"loc":[]}],"message":{}}"#,
        ] {
            assert_eq!(sentence(502, body), "backend: HTTP 502");
        }
        assert_eq!(
            sentence(502, r#"{"error":"\u0000 \n"}"#),
            "backend: HTTP 502"
        );
    }

    #[test]
    fn plain_text_has_words_unless_it_is_a_page_or_json_or_none() {
        let words = |body: &[u8]| plain_words(body);
        assert_eq!(
            words(b"Internal Server Error\n").unwrap(),
            "Internal Server Error"
        );
        assert_eq!(words(b"no route to 10.1.2.3").unwrap(), "no route to …");
        for body in [
            &b""[..],
            b" \n",
            b"<html>",
            b"{",
            b"[1]",
            b"\"x\"",
            b"\xff",
            b"a\0b",
        ] {
            assert_eq!(words(body), None, "{body:?}");
        }
    }

    #[test]
    fn nothing_tells_where_the_backend_is_or_what_lies_on_its_disk() {
        for (words, cleaned) in [
            (
                "Post \"http://127.0.0.1:41863/completion\": EOF",
                "Post \"…\": EOF",
            ),
            ("see https://user:pw@host/a?b=c.", "see …."),
            (
                "dial tcp 127.0.0.1:11434: connect: connection refused",
                "dial tcp …: connect: connection refused",
            ),
            (
                "dial tcp [::1]:11434: connect: refused",
                "dial tcp …: connect: refused",
            ),
            ("dial tcp [fe80::1%eth0]:80: refused", "dial tcp …: refused"),
            (
                "lookup ollama.internal:11434/api/chat failed",
                "lookup … failed",
            ),
            (
                "no route to 10.1.2.3, giving up",
                "no route to …, giving up",
            ),
            (
                "open /root/.ollama/models/blobs/sha256-0a: no such file",
                "open …: no such file",
            ),
            (
                "open '/home/my user/x': no such file",
                "open '…': no such file",
            ),
            ("open C:\\Users\\me\\model.gguf: denied", "open …: denied"),
            ("open \\\\nas\\models: denied", "open …: denied"),
            ("open C:\\Users\\Ann Zoe\\m.gguf: denied", "open …: denied"),
            ("open /home/Ann Zoe/m.gguf: denied", "open …: denied"),
            ("no route to fe80::1%eth0", "no route to …%eth0"),
            (
                "no route to 2001:db8::1: timed out",
                "no route to …: timed out",
            ),
            ("in std::vector, a::b, 0x7f", "in std::vector, a::b, 0x7f"),
            ("model=/m/x.gguf failed (/tmp/y)", "model=… failed (…)"),
            ("file:///etc/passwd", "…"),
            (
                "a and/or b, 3 / 4 in 0.5s: 100%",
                "a and/or b, 3 / 4 in 0.5s: 100%",
            ),
            ("two\nlines\u{1b}[31m", "two lines[31m"),
            ("ht\u{0}tp://secret.example", "…"),
        ] {
            assert_eq!(clean(words), cleaned, "{words}");
        }
    }

    #[test]
    fn no_key_is_repeated() {
        for (words, cleaned) in [
            (
                "bad header Authorization: Bearer sk-1234.abcd",
                "bad header Authorization: Bearer …",
            ),
            (
                "got 'Bearer abc-DEF_9', wanted another",
                "got 'Bearer …', wanted another",
            ),
            ("header Basic YW5uOnB3", "header Basic …"),
            (
                "Incorrect API key provided: sk-proj-abc.",
                "Incorrect API key provided: ….",
            ),
            ("the bearer of bad news", "the bearer … bad news"),
            ("a basic risk-free model", "a basic risk-free model"),
        ] {
            assert_eq!(clean(words), cleaned, "{words}");
        }
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let cleaned = clean(&"🦀é".repeat(200));
        assert!((MAX_BYTES - 3..=MAX_BYTES).contains(&cleaned.len()));
        assert!(cleaned.chars().all(|c| "🦀é".contains(c)));
    }

    #[test]
    fn an_error_of_megabytes_costs_no_more_than_a_look_at_its_beginning() {
        // Not the time that passes: on a busy machine that says little.
        let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let before = worked();
        for part in ["[", "a:", "/x ", "\u{0}", "1.1.1.1:"] {
            let words = part.repeat(8 * 1024 * 1024 / part.len());
            let error = serde_json::value::to_raw_value(&words).unwrap();
            let text = text_of(words_of_error(error.get()));
            assert!(
                text.len() <= MAX_BYTES + "backend: ".len(),
                "{}",
                text.len()
            );
        }
        let nested = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        let error = format!(r#"{{"message":{nested}}}"#);
        assert_eq!(
            text_of(words_of_error(&error)),
            "backend: an error without words"
        );
        let took = worked() - before;
        assert!(took < Duration::from_secs(20), "{took:?}");
    }

    proptest! {
        #[test]
        fn any_words_stay_short_and_printable(words in "\\PC{0,700}|[/:.\\[\\]0-9a-z\"' ]{0,100}") {
            let cleaned = clean(&words);
            prop_assert!(cleaned.len() <= MAX_BYTES);
            prop_assert!(!cleaned.contains(char::is_control));
            prop_assert!(!cleaned.contains("://"));
        }

        #[test]
        fn nothing_private_survives_whatever_stands_around_it(
            before in "([ -~]{0,30}[ \"'(=,;<:])?",
            private in private(),
            after in "([ \"'),;:.!?>][ -~]{0,30})?",
        ) {
            let cleaned = clean(&format!("{before}{private}{after}"));
            prop_assert!(!cleaned.contains("zebra"), "{}", cleaned);
            prop_assert!(!cleaned.contains("4711"), "{}", cleaned);
        }
    }

    /// URLs, hosts with their ports, addresses and absolute paths, which all have `zebra` or `4711` in them.
    fn private() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9+.-]{0,5}://([a-z]{1,4}:zebra@)?zebra[a-z0-9.-]{0,9}(:[0-9]{1,5})?(/[a-z0-9._~%&=?#-]{0,9}){0,3}",
            "([a-z0-9-]{1,9}\\.){0,2}zebra(\\.[a-z]{1,4})?:[0-9]{2,5}(/zebra[a-z0-9]{0,5})?",
            "(/[a-z0-9._-]{1,9}){0,3}/zebra[a-z0-9._-]{0,9}(/[a-z0-9._-]{1,9}){0,2}",
            "[A-Z]:\\\\([A-Za-z0-9._-]{1,9}\\\\){0,3}zebra[a-z0-9.]{0,5}",
            "[A-Z]:\\\\Users\\\\Ann Zoe\\\\zebra",
            "\\[2001:db8:[0-9a-f]{1,4}::4711\\](:[0-9]{2,5})?",
            "(2001:db8:[0-9a-f]{1,4}|fe80|fd00:1)::4711",
        ]
    }
}
