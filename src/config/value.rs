//! The types that settings are read into. A value is parsed once, here, and never again as text further in.
//!
//! Invariant: a value that exists is one that is allowed, and its `Display` writes what may be logged.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use hyper::header::HeaderValue;
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::{
    error::Invalid,
    field::Value,
    plain::{Blanks, refuse_invisible},
};
use crate::{
    protocol::{Generation, SignatureScheme},
    secret::Kind,
    telemetry::LogFormat,
};

/// What a private value is shown as.
const REDACTED: &str = "[redacted]";

/// Who the sidecar logs in as. Visible ASCII, since it also travels in HTTP headers.
#[derive(Clone)]
pub(super) struct ClientId(pub(super) String);

impl Value for ClientId {
    fn parse(text: &str) -> Result<Self, Invalid> {
        if is_word(text) && text.is_ascii() {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::value(
                text,
                "is not a client id; write it as the network gave it, such as op_abc123",
            ))
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client calls itself in HTTP, as edges and proxies take it without a doubt: printable ASCII.
pub(super) struct UserAgent(pub(super) HeaderValue);

impl Value for UserAgent {
    const BLANKS: Blanks = Blanks::Anywhere;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let value = HeaderValue::from_str(text).ok();
        value.filter(|_| is_printable).map(Self).ok_or_else(|| {
            Invalid::value(
                text,
                "cannot be sent in an HTTP header; write printable ASCII, such as pin-sidecar/0.1",
            )
        })
    }
}

impl fmt::Display for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// One line of text for people.
pub(super) struct Text(pub(super) String);

impl Value for Text {
    const BLANKS: Blanks = Blanks::Anywhere;
    const FOR_PEOPLE: bool = true;

    fn parse(text: &str) -> Result<Self, Invalid> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is one word of characters that ids, tokens and wallets may have: what else there is comes from a shell, a
/// comment or a list.
pub(super) fn is_word(text: &str) -> bool {
    let may_be_in_one = |c: char| {
        !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '\'' | '`' | '#' | ',' | ';')
    };
    text.chars().all(may_be_in_one)
}

/// A wallet, which is nobody's business.
pub(super) struct PayoutAddress(pub(super) String);

impl Value for PayoutAddress {
    const PRIVATE: bool = true;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if is_word(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            "has a character in it that no wallet has (a quote, a comma, a semicolon or a #); write the address alone",
        ))
    }
}

impl fmt::Display for PayoutAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A secret given as a value. The environment keeps a copy of it for as long as the process lives, which is why a
/// file is the better place.
pub(super) struct Given<const IS_TOKEN: bool>(pub(super) SecretString);

/// What the sidecar signs or logs in with.
pub(super) type Secret = Given<false>;

/// What is sent, or brought, behind `Bearer`.
pub(super) type Token = Given<true>;

impl<const IS_TOKEN: bool> Value for Given<IS_TOKEN> {
    const PRIVATE: bool = true;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let kind = if IS_TOKEN { Kind::Token } else { Kind::Secret };
        let secret = kind.read(text);
        secret
            .map(Self)
            .map_err(|problem| Invalid::new(problem.to_string()))
    }

    /// As a file of it, save that only a file has a line end behind its line.
    fn read(text: &str) -> Result<Self, Invalid> {
        if text.ends_with(['\n', '\r']) {
            refuse_invisible::<Self>(text)?;
        }
        Self::parse(text)
    }
}

impl<const IS_TOKEN: bool> fmt::Display for Given<IS_TOKEN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A file's path.
pub(super) struct FilePath(pub(super) PathBuf);

impl Value for FilePath {
    const BLANKS: Blanks = Blanks::Anywhere;

    fn parse(text: &str) -> Result<Self, Invalid> {
        Ok(Self(PathBuf::from(text)))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

/// A number of things; zero only where `LEAST` is.
#[derive(Clone, Copy)]
pub(super) struct Count<const LEAST: usize>(pub(super) usize);

impl<const LEAST: usize> Count<LEAST> {
    /// More jobs at once than any machine serves, and few enough that no sum or semaphore overflows.
    const MOST: usize = 1_000_000;
}

impl<const LEAST: usize> Value for Count<LEAST> {
    fn parse(text: &str) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(number) if (LEAST..=Self::MOST).contains(&number) => Ok(Self(number)),
            Ok(_) | Err(_) => Err(Invalid::value(
                text,
                format_args!("is not a whole number from {LEAST} to {}", Self::MOST),
            )),
        }
    }
}

impl<const LEAST: usize> fmt::Display for Count<LEAST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of tokens, at least one.
pub(super) struct Tokens(pub(super) u64);

impl Value for Tokens {
    fn parse(text: &str) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(0) | Err(_) => Err(Invalid::value(
                text,
                "is not a whole number of tokens from 1 up, such as 8192",
            )),
            Ok(tokens) => Ok(Self(tokens)),
        }
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An amount of memory in bytes, at least `LEAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Size<const LEAST: usize>(pub(super) usize);

impl<const LEAST: usize> Size<LEAST> {
    /// What a sidecar may hold at most: it fits 32 bits, as the permits of a semaphore that counts bytes must.
    const MOST: usize = 2 << 30;
}

impl<const LEAST: usize> Value for Size<LEAST> {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let size: ByteSize = text.parse().map_err(|_| {
            Invalid::value(
                text,
                "is not a size; write one such as 16MiB, 512KiB or 1048576",
            )
        })?;
        match usize::try_from(size.as_u64()) {
            Ok(bytes) if (LEAST..=Self::MOST).contains(&bytes) => Ok(Self(bytes)),
            Ok(_) | Err(_) => {
                let (least, most) = (Self(LEAST), Self(Self::MOST));
                Err(Invalid::value(
                    text,
                    format_args!("is out of range; write a size from {least} to {most}"),
                ))
            }
        }
    }
}

impl<const LEAST: usize> fmt::Display for Size<LEAST> {
    /// In the largest unit that gives a whole number, so that no digit is lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS
            .iter()
            .find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time, with its unit; zero only where that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Time<const ZERO_ALLOWED: bool>(pub(super) Duration);

/// A time-out or an interval: never zero.
pub(super) type Interval = Time<false>;

/// A time that may be zero, which is not to wait at all.
pub(super) type Timeout = Time<true>;

/// Longer than anybody waits, and short enough that adding it to the clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl<const ZERO_ALLOWED: bool> Value for Time<ZERO_ALLOWED> {
    const BLANKS: Blanks = Blanks::BesideUnits;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.parse::<f64>().is_ok() {
            return Err(Invalid::value(
                text,
                "has no unit; write a duration such as 15s, 500ms or 5m",
            ));
        }
        match humantime::parse_duration(text) {
            Ok(Duration::ZERO) if !ZERO_ALLOWED => {
                Err(Invalid::value(text, "is zero; write a longer duration"))
            }
            Ok(time) if time > LONGEST => Err(Invalid::value(
                text,
                "is too long; write a duration of at most 366d",
            )),
            Ok(time) => Ok(Self(time)),
            Err(_) => Err(Invalid::value(
                text,
                "is not a duration; write one such as 15s, 500ms or 5m",
            )),
        }
    }
}

impl<const ZERO_ALLOWED: bool> fmt::Display for Time<ZERO_ALLOWED> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// US dollars for a thousand tokens, with the digits that the operator wrote.
#[derive(Clone, Debug)]
pub struct Price {
    json: Box<RawValue>,
    number: f64,
}

impl Price {
    /// The price to calculate with; finite and not negative.
    pub fn as_f64(&self) -> f64 {
        self.number
    }

    /// The price to send: a JSON number, digit for digit as it was written.
    pub fn as_json(&self) -> &RawValue {
        &self.json
    }
}

impl Value for Price {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || {
            Invalid::value(
                text,
                "is not a price; write a number that is not negative, such as 0.001",
            )
        };
        let number: f64 = serde_json::from_str(text).map_err(|_| invalid())?;
        if !number.is_finite() || number.is_sign_negative() {
            return Err(invalid());
        }
        let json = RawValue::from_string(text.to_owned()).map_err(|_| invalid())?;
        Ok(Self { json, number })
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json.get())
    }
}

/// An address to listen on.
pub(super) struct ListenAddr(pub(super) SocketAddr);

impl Value for ListenAddr {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = |_| {
            Invalid::value(
                text,
                "is not an address; write IP:PORT, such as 127.0.0.1:9464 or [::]:9464",
            )
        };
        text.parse().map(Self).map_err(invalid)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A type with few values, each of which has one word.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// Every value with its word.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for it. A value that was left out of [`Words::WORDS`] has none.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }
}

/// One of a few words.
#[derive(Clone, Copy)]
pub(super) struct Choice<T>(pub(super) T);

impl<T: Words> Value for Choice<T> {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let found = T::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| Self(*value)).ok_or_else(|| {
            let allowed: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
            Invalid::value(text, format_args!("is not one of: {}", allowed.join(", ")))
        })
    }
}

impl<T: Words> fmt::Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.word())
    }
}

impl Words for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("true", true), ("false", false)];
}

impl Words for Generation {
    const WORDS: &'static [(&'static str, Self)] = &[("1", Self::Desktop), ("2", Self::Operator)];
}

impl Words for SignatureScheme {
    const WORDS: &'static [(&'static str, Self)] =
        &[("sha256", Self::Sha256), ("hmac-sha256", Self::HmacSha256)];
}

/// Where the node is, in the network's own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are all there is to say
pub enum Region {
    UsEast,
    UsWest,
    EuWest,
    EuCentral,
    AsiaPacific,
    Global,
}

impl Region {
    /// The word that the protocol has for it.
    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

impl Words for Region {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("us-east", Self::UsEast),
        ("us-west", Self::UsWest),
        ("eu-west", Self::EuWest),
        ("eu-central", Self::EuCentral),
        ("asia-pacific", Self::AsiaPacific),
        ("global", Self::Global),
    ];
}

/// The interface of a model server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiMode {
    /// Ollama's own.
    Ollama,
    /// OpenAI's, which most others have.
    OpenAi,
}

impl Words for ApiMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ollama", Self::Ollama), ("openai", Self::OpenAi)];
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}
