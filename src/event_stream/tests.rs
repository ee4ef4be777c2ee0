//! What is read of an event stream, in whatever pieces and spellings it comes.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{convert::Infallible, time::Instant};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use proptest::prelude::*;
use sse_stream::SseByteStream;

use super::*;

/// What a reader was given.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Event(Vec<u8>),
    Comment,
    Unfinished(Vec<u8>),
}

fn event(data: impl AsRef<[u8]>) -> Given {
    Given::Event(data.as_ref().to_vec())
}

fn unfinished(data: impl AsRef<[u8]>) -> Given {
    Given::Unfinished(data.as_ref().to_vec())
}

fn read_into(
    given: &mut Vec<Given>,
    stream: &mut EventStream,
    mut bytes: &[u8],
) -> Result<(), TooLarge> {
    while let Some(piece) = stream.next(&mut bytes)? {
        given.push(match piece {
            Piece::Event(data) => event(data),
            Piece::Comment => Given::Comment,
        });
    }
    assert!(bytes.is_empty(), "a read was left unread");
    Ok(())
}

/// What comes of reads, of an event up to `max` bytes, and of what the stream ends with.
fn read_up_to<'a>(
    max: usize,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Given>, TooLarge> {
    let (mut given, mut stream) = (Vec::new(), EventStream::default());
    stream.limit(max);
    for bytes in reads {
        read_into(&mut given, &mut stream, bytes)?;
    }
    given.extend(stream.unfinished().map(unfinished));
    Ok(given)
}

fn read<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Given> {
    read_up_to(usize::MAX, reads).unwrap()
}

/// Asserts what a stream says, wherever its reads end.
#[track_caller]
fn says(text: impl AsRef<[u8]>, expected: &[Given]) {
    let text = text.as_ref();
    assert_eq!(read([text]), expected, "in one read");
    assert_eq!(read(text.chunks(1)), expected, "byte by byte");
    for (at, _) in text.iter().enumerate() {
        let (first, second) = text.split_at(at);
        assert_eq!(read([first, second]), expected, "cut at {at}");
        assert_eq!(read([first, &[], second]), expected, "cut twice at {at}");
    }
}

#[test]
fn every_line_ending_is_read() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["data: a", "", "data: b", "data: c", "", "", ""].join(end);
        says(text, &[event("a"), event("b\nc")]);
    }
}

#[test]
fn line_endings_may_be_mixed() {
    says("data: a\r\ndata: b\rdata: c\n\r\n", &[event("a\nb\nc")]);
    says(
        "data: a\n\rdata: b\r\r\ndata: c\r\n\n",
        &[event("a"), event("b"), event("c")],
    );
}

#[test]
fn a_carriage_return_ends_an_event_before_the_next_byte_comes() {
    let (mut given, mut stream) = (Vec::new(), EventStream::default());
    read_into(&mut given, &mut stream, b"data: a\r\r").unwrap();
    assert_eq!(given, [event("a")]);
    read_into(&mut given, &mut stream, b"\ndata: b\r\n\r").unwrap();
    assert_eq!(given, [event("a"), event("b")]);
    assert!(stream.unfinished().is_none());
}

#[test]
fn a_byte_order_mark_is_skipped_once_and_only_at_the_beginning() {
    says("\u{feff}data: a\n\n", &[event("a")]);
    says("\u{feff}: x\n", &[Given::Comment]);
    says("\u{feff}\ndata: a\n\n", &[event("a")]);
    says("\u{feff}\u{feff}data: a\n\n", &[]);
    says("data: a\n\n\u{feff}data: b\n\n", &[event("a")]);
    says(b"\xef\xbbdata: a\n\ndata: b\n\n", &[event("b")]);
}

#[test]
fn a_comment_is_life_also_within_an_event() {
    says(": ping - 2026\n\n:\n\n", &[Given::Comment, Given::Comment]);
    says(
        "data: a\n: x\ndata: b\n\n",
        &[Given::Comment, event("a\nb")],
    );
    says("data: a\n:data: b\n\n", &[Given::Comment, event("a")]);
}

#[test]
fn one_space_after_the_colon_is_no_data() {
    says("data:a\n\n", &[event("a")]);
    says("data:  a \n\n", &[event(" a ")]);
    says("data: : a\n\n", &[event(": a")]);
    says("data:\ta\n\n", &[event("\ta")]);
}

#[test]
fn empty_data_is_an_event_and_no_data_is_none() {
    says("data\n\n", &[event("")]);
    says("data:\n\n", &[event("")]);
    says("data: \n\n", &[event("")]);
    says("data\ndata:\ndata: a\n\n", &[event("\n\na")]);
    says("event: x\n\nid: 1\n\n\n\n", &[]);
}

#[test]
fn other_fields_are_skipped() {
    says(
        "retry: 5\nevent: delta\nid: 7\ndata: a\nid\nnothing known\nDATA: b\n data: c\ndatum: d\ndata2: e\n\n",
        &[event("a")],
    );
    says("event: x\ndat\ndata: a\nda: b\n\n", &[event("a")]);
}

#[test]
fn bytes_that_are_no_text_are_the_readers_affair() {
    says("data: 🦀é\n\n", &[event("🦀é")]);
    says(
        b": \xff\ndata: \xff\0\xfe\n\xff\n\n",
        &[Given::Comment, event(b"\xff\0\xfe")],
    );
}

#[test]
fn a_stream_that_ends_without_a_blank_line_leaves_its_last_event() {
    says("data: a\n\ndata: b\n", &[event("a"), unfinished("b")]);
    says("data: a\n\ndata: b", &[event("a"), unfinished("b")]);
    says("data: a\ndata: b", &[unfinished("a\nb")]);
    says("data: a\ndata:", &[unfinished("a\n")]);
    says("data: a\ndata", &[unfinished("a\n")]);
    says("data: a\ndat", &[unfinished("a")]);
    says("data: a\r\nevent: x", &[unfinished("a")]);
    says("data: a\n: x", &[unfinished("a")]);
    says("data: a\n\n\nid: 1\n: x", &[event("a")]);
    says("\u{feff}", &[]);
    says("", &[]);
}

#[test]
fn what_is_unfinished_is_told_once() {
    let mut stream = EventStream::default();
    read_into(&mut Vec::new(), &mut stream, b"data: a").unwrap();
    assert_eq!(stream.unfinished(), Some(&b"a"[..]));
    assert_eq!(stream.unfinished(), None);
}

#[test]
fn an_event_within_one_read_is_not_copied() {
    let read = b"data: a\n\nid: 1\ndata:bc\r\n\r\n";
    let (mut stream, mut rest, mut events) = (EventStream::default(), &read[..], 0);
    while let Some(piece) = stream.next(&mut rest).unwrap() {
        let Piece::Event(data) = piece else {
            panic!("no comment was sent");
        };
        assert!(read.as_ptr_range().contains(&data.as_ptr()));
        events += 1;
    }
    assert_eq!((events, stream.data.capacity()), (2, 0));
}

#[test]
fn a_long_line_in_small_reads_is_searched_once() {
    let text = format!("data: {}\n\n", "x".repeat(4 << 20));
    let (mut given, mut stream) = (Vec::new(), EventStream::default());
    for bytes in text.as_bytes().chunks(1460) {
        read_into(&mut given, &mut stream, bytes).unwrap();
    }
    assert_eq!(given, [event(&text[6..text.len() - 2])]);
    assert_eq!(stream.searched, text.len());
}

#[test]
fn a_large_event_does_not_hold_its_memory_for_as_long_as_the_stream_lives() {
    let text = format!("data: {}\n\n", "x".repeat(4 << 20));
    let mut stream = EventStream::default();
    for bytes in text.as_bytes().chunks(1460).chain([&b"data: b"[..]]) {
        read_into(&mut Vec::new(), &mut stream, bytes).unwrap();
    }
    assert!(stream.data.capacity() <= KEPT);
}

/// Asserts that `text` counts `size` bytes: it is read with that limit, and with no smaller one, wherever its reads end.
#[track_caller]
fn counts(text: &str, size: usize) {
    for at in 0..text.len() {
        let (first, second) = text.as_bytes().split_at(at);
        assert!(read_up_to(size, [first, second]).is_ok(), "cut at {at}");
        assert_eq!(
            read_up_to(size - 1, [first, second]),
            Err(TooLarge),
            "cut at {at}"
        );
    }
}

#[test]
fn a_limit_counts_all_lines_of_an_event() {
    counts("data: 12345\n\n", 6);
    counts("data: 123456", 6);
    counts("data: 1234\r\ndata: 6789\r\n\r\n", 10);
    counts("data:\ndata\ndata: \n\n", 3);
    counts("event: x\ndata: 0\nid\n\n", 14);
    counts("x\nx\nx\n", 6);
    counts("xxxxxx", 6);
    counts("\ndata: 1\n", 2);
    counts("data7\ndat\nd\n", 12);
    counts("\u{feff}x\n", 2);
}

#[test]
fn a_limit_is_one_events_and_comments_are_none() {
    let comments = ": a comment that is longer than the limit\n".repeat(9);
    let text = format!("{comments}data: a\n\nid: 1\n\n{comments}data: b\n{comments}data: c\n\n");
    let given = read_up_to(6, text.as_bytes().chunks(3)).unwrap();
    let events = given.into_iter().filter(|given| *given != Given::Comment);
    assert_eq!(events.collect::<Vec<_>>(), [event("a"), event("b\nc")]);
}

#[test]
fn nothing_is_read_after_an_event_that_is_too_large() {
    let mut stream = EventStream::default();
    stream.limit(3);
    for bytes in [&b"data: 1234\n"[..], b"\n", b"data: 1\n\n"] {
        assert_eq!(
            read_into(&mut Vec::new(), &mut stream, bytes),
            Err(TooLarge)
        );
    }
}

/// Reads of `text` that end at fractions of it.
fn cut<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    ends.extend([0, text.len()]);
    ends.sort_unstable();
    ends.windows(2)
        .map(|pair| &text[pair[0]..pair[1]])
        .collect()
}

/// The events of `sse-stream`, which gives blocks without data too, and no unfinished ones.
fn events_of_sse_stream(reads: &[&[u8]]) -> Vec<Given> {
    let reads: Vec<_> = reads
        .iter()
        .map(|read| Ok::<_, Infallible>(Bytes::copy_from_slice(read)))
        .collect();
    let blocks = SseByteStream::new(stream::iter(reads)).map(|block| block.unwrap().data);
    let events = blocks.filter_map(|data| async { data.map(event) });
    events.collect().now_or_never().unwrap()
}

/// What streams are made of, and what is nearly that.
fn spellings() -> impl Strategy<Value = String> {
    const TOKENS: &[&str] = &[
        "data",
        "data:",
        "data: ",
        "dat",
        "da",
        ":",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        "x",
        "é🦀",
        "\u{feff}",
        "event: a",
        "id: 1",
        "retry: 5",
        "\0",
        "\t",
        "data: a\n\n",
        "data:b\r\n\r\n",
    ];
    prop::collection::vec(prop::sample::select(TOKENS), 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn another_decoder_reads_the_same(text in spellings(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let reads = cut(text.as_bytes(), &cuts);
        let mut events = read(reads.iter().copied());
        events.retain(|given| matches!(given, Given::Event(_)));
        prop_assert_eq!(events, events_of_sse_stream(&reads));
    }

    #[test]
    fn where_reads_end_makes_no_difference(text in spellings(), max in 1..100_usize, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let reads = cut(text.as_bytes(), &cuts);
        prop_assert_eq!(read_up_to(max, reads), read_up_to(max, [text.as_bytes()]));
    }

    #[test]
    fn no_bytes_make_it_panic_or_keep_more_than_its_limit(bytes in prop::collection::vec(any::<u8>(), 0..200), text in spellings(), max in 0..50_usize) {
        let mut stream = EventStream::default();
        stream.limit(max);
        for bytes in [text.as_bytes(), &bytes, text.as_bytes()].concat().chunks(7) {
            let _ = read_into(&mut Vec::new(), &mut stream, bytes);
            prop_assert!(stream.data.len() <= max);
        }
        stream.unfinished();
    }
}

/// Prints how long reading takes. As fast as it is shipped:
/// `cargo test --profile no-lto --lib event_stream -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn an_event_is_read_within_its_budget() {
    /// What an event may cost. Reading its JSON costs more.
    const BUDGET_NS: u128 = 400;
    const EVENTS: u128 = 1_000_000;
    let event = format!(
        "data: {{\"id\":\"chatcmpl-1\",\"choices\":[{}]}}\n\n",
        "x".repeat(200)
    );
    for (what, events, size) in [
        ("in each read", 1, usize::MAX),
        ("whole in 16 KiB", 60, usize::MAX),
        ("cut in two", 1, 128),
    ] {
        let text = event.repeat(events);
        let (mut stream, mut read, begin) = (EventStream::default(), 0, Instant::now());
        while read < EVENTS {
            for mut bytes in text.as_bytes().chunks(size) {
                while stream.next(&mut bytes).unwrap().is_some() {
                    read += 1;
                }
            }
        }
        let ns = begin.elapsed().as_nanos() / read;
        println!("an event of {} bytes, {what}: {ns} ns", event.len());
        assert!(cfg!(debug_assertions) || ns <= BUDGET_NS);
    }
}
