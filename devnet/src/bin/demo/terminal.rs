//! What the demo shows. Colours and moving lines only where a terminal is there to show them.

use std::io::{self, IsTerminal, Write};

use rustix::termios::Winsize;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

/// Where a width is not known.
const USUAL_WIDTH: usize = 80;

/// Where a height is not known, in rows.
const USUAL_HEIGHT: usize = 24;

/// The left column of a line.
const LABEL_WIDTH: usize = 9;

pub(crate) struct Terminal {
    colour: bool,
    /// Lines can be written again.
    moving: bool,
    /// How many lines at the bottom belong to the last picture.
    picture: usize,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let moving = io::stdout().is_terminal()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: moving && !plain,
            moving,
            picture: 0,
        }
    }

    pub(crate) fn can_move(&self) -> bool {
        self.moving
    }

    /// Columns.
    pub(crate) fn width(&self) -> usize {
        self.size(|size| size.ws_col).unwrap_or(USUAL_WIDTH)
    }

    /// Rows.
    pub(crate) fn height(&self) -> usize {
        self.size(|size| size.ws_row).unwrap_or(USUAL_HEIGHT)
    }

    fn size(&self, of: impl Fn(Winsize) -> u16) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        let size = usize::from(of(size));
        (self.moving && size > 0).then_some(size)
    }

    pub(crate) fn title(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.line(&text);
    }

    /// The beginning of a part.
    pub(crate) fn part(&mut self, text: &str) {
        self.line("");
        self.title(text);
    }

    /// A name and what there is to say of it.
    pub(crate) fn say(&mut self, label: &str, text: &str) {
        let row = self.row(label, text);
        self.line(&row);
    }

    /// The line that [`say`](Terminal::say) writes.
    pub(crate) fn row(&self, label: &str, text: &str) -> String {
        let label = self.paint(CYAN, &format!("{label:LABEL_WIDTH$}"));
        format!("  {label} {text}")
    }

    pub(crate) fn good(&mut self, label: &str, text: &str) {
        let text = self.paint(GREEN, text);
        self.say(label, &text);
    }

    /// Text that a person will copy: nothing around it.
    pub(crate) fn verbatim(&mut self, text: &str) {
        self.line(&format!("  {text}"));
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint(DIM, text)
    }

    /// Text in the colour of the n-th chat.
    pub(crate) fn nth(&self, n: usize, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "33", "35", "32", "34", "31"];
        self.paint(COLOURS[n % COLOURS.len()], text)
    }

    /// Puts lines in the place of the last picture's.
    pub(crate) fn picture(&mut self, lines: &[String]) {
        // Without wrapping, so that on a narrow terminal too a line is a line.
        let mut out = "\x1b[?7l".to_owned();
        if self.picture > 0 {
            out += &format!("\x1b[{}A", self.picture);
        }
        for line in lines {
            out += &format!("\r{line}\x1b[K\n");
        }
        // A picture may have fewer lines than the one before.
        out += "\x1b[J\x1b[?7h";
        self.picture = lines.len();
        self.write(&out);
    }

    /// What was drawn goes.
    pub(crate) fn take_picture_away(&mut self) {
        if self.picture > 0 {
            self.picture(&[]);
        }
    }

    /// What was drawn stays.
    pub(crate) fn keep_picture(&mut self) {
        self.picture = 0;
    }

    /// A piece of a line.
    pub(crate) fn write(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        // With nobody there to read, the demo still tells by its exit code how it went.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Says what went wrong, where errors go.
    pub(crate) fn complain(trouble: &str) {
        let mut out = io::stderr().lock();
        let colour =
            out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let word = if colour {
            format!("\x1b[{RED}merror:\x1b[0m")
        } else {
            "error:".to_owned()
        };
        // As in `write`.
        let _ = writeln!(out, "\n{word} {trouble}");
    }

    pub(crate) fn line(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
