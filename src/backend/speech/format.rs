//! Which format a clip has, by what the server says of it or by its first bytes; and what is no clip, whatever the
//! server says.

/// How many first bytes of an answer are looked at.
pub(super) const LOOKED_AT: usize = 64;

/// The format that a content type shows; `None` where it shows none that is known.
pub(super) fn of_content_type(content_type: &str) -> Option<&'static str> {
    let media_type = media_type(content_type);
    Some(match &*media_type {
        "audio/mpeg" | "audio/mp3" => "mp3",
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "wav",
        "audio/ogg" | "audio/opus" => "opus",
        "audio/flac" | "audio/x-flac" => "flac",
        "audio/aac" => "aac",
        "audio/l16" => "pcm",
        raw if raw.starts_with("audio/pcm") => "pcm",
        _ => return None,
    })
}

/// What a content type calls its format, where that is none of the known ones.
pub(super) fn named_by(content_type: &str) -> Option<&str> {
    let media_type = content_type.split(';').next()?.trim();
    let name = media_type.strip_prefix("audio/")?;
    Some(name.strip_prefix("x-").unwrap_or(name)).filter(|name| !name.is_empty())
}

/// The format that the first bytes show. Raw samples show nothing.
pub(super) fn of_bytes(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'R', b'I', b'F', b'F', ..] => Some("wav"),
        [b'O', b'g', b'g', b'S', ..] => Some("opus"),
        [b'f', b'L', b'a', b'C', ..] => Some("flac"),
        [b'I', b'D', b'3', ..] => Some("mp3"),
        // Eleven bits of a frame's beginning, two of its version, two of its layer: 01 is layer III of MPEG (ISO 11172-3,
        // 2.4.1.3), and 00 is AAC's (ISO 13818-7, 6.2).
        [0xff, second, ..] if second & 0xe6 == 0xe2 => Some("mp3"),
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Some("aac"),
        _ => None,
    }
}

/// The content type of a format, for an answer that does not say.
pub(super) fn content_type_of(format: &str) -> &'static str {
    match format {
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "opus" => "audio/ogg",
        "flac" => "audio/flac",
        "aac" => "audio/aac",
        "pcm" => "audio/pcm",
        _ => "application/octet-stream",
    }
}

/// What an answer with this content type is instead of a clip, if it is none.
pub(super) fn what_else(content_type: &str) -> Option<&'static str> {
    let media_type = media_type(content_type);
    if media_type.ends_with("json") {
        Some("JSON")
    } else if media_type.contains("html") {
        Some("HTML")
    } else if media_type == "text/event-stream" {
        Some("an event stream")
    } else if media_type.starts_with("text/") || media_type.ends_with("xml") {
        Some("text")
    } else if media_type.starts_with("image/") || media_type.starts_with("multipart/") {
        Some("something else")
    } else {
        None
    }
}

/// Whether an answer that begins so is a page, whatever its content type is.
pub(super) fn is_page(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let begins = |tag: &&[u8]| {
        let beginning = bytes.get(..tag.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(tag))
    };
    let tags: [&[u8]; 5] = [b"<!doctype", b"<html", b"<head", b"<body", b"<?xml"];
    tags.iter().any(begins)
}

fn media_type(content_type: &str) -> String {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_the_content_type_shows() {
        for (content_type, format) in [
            ("audio/mpeg", Some("mp3")),
            ("audio/mp3", Some("mp3")),
            ("Audio/WAV", Some("wav")),
            ("audio/x-wav", Some("wav")),
            ("audio/wave", Some("wav")),
            ("audio/vnd.wave; codec=1", Some("wav")),
            ("audio/ogg;codec=opus", Some("opus")),
            ("audio/opus", Some("opus")),
            ("audio/flac", Some("flac")),
            ("audio/x-flac", Some("flac")),
            ("audio/aac", Some("aac")),
            ("audio/pcm", Some("pcm")),
            ("audio/pcm_s16le", Some("pcm")),
            ("audio/pcm;rate=24000", Some("pcm")),
            ("audio/L16; rate=16000", Some("pcm")),
            ("audio/webm", None),
            ("application/octet-stream", None),
            ("", None),
        ] {
            assert_eq!(of_content_type(content_type), format, "{content_type}");
        }
    }

    #[test]
    fn the_first_bytes_show_the_format_of_what_has_a_beginning() {
        for (bytes, format) in [
            (&b"RIFF....WAVE"[..], Some("wav")),
            (b"OggS\0", Some("opus")),
            (b"fLaC\0", Some("flac")),
            (b"ID3\x04", Some("mp3")),
            (b"\xff\xfb\x90", Some("mp3")),
            (b"\xff\xf3\x84", Some("mp3")),
            (b"\xff\xe3\x18", Some("mp3")),
            (b"\xff\xf1\x50", Some("aac")),
            (b"\xff\xf9\x50", Some("aac")),
            // Samples of -1: silence with some noise.
            (b"\xff\xff\xff\xff", None),
            (b"\0\0", None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(of_bytes(bytes), format, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_clip_is_known_by_its_content_type_or_its_beginning() {
        for (content_type, what) in [
            ("application/json; charset=utf-8", Some("JSON")),
            ("application/problem+json", Some("JSON")),
            ("text/html", Some("HTML")),
            ("application/xhtml+xml", Some("HTML")),
            ("text/plain", Some("text")),
            ("application/xml", Some("text")),
            ("text/event-stream", Some("an event stream")),
            ("audio/mpeg", None),
            ("application/octet-stream", None),
            ("binary/octet-stream", None),
        ] {
            assert_eq!(what_else(content_type), what, "{content_type}");
        }
        for page in [
            "<!DOCTYPE html>",
            "\r\n <html lang",
            "<?xml version",
            "<BODY>",
        ] {
            assert!(is_page(page.as_bytes()), "{page}");
        }
        for clip in [&b"RIFF"[..], b"<\0\0\0", b"<h\x12", b""] {
            assert!(!is_page(clip), "{clip:?}");
        }
    }

    #[test]
    fn a_format_has_the_content_type_that_shows_it() {
        for format in ["mp3", "wav", "opus", "flac", "aac", "pcm"] {
            assert_eq!(of_content_type(content_type_of(format)), Some(format));
        }
        assert_eq!(content_type_of("webm"), "application/octet-stream");
    }
}
