//! Answers side by side while they are spoken. On a terminal each has its place, which is drawn again; elsewhere, and on a
//! terminal that is too low, the lines of all of them follow each other as they fill, with the chat's number in front.

use crate::{terminal::Terminal, wrap::wrap};

/// Lines of an answer that a picture shows at most.
const MAX_LINES: usize = 6;

/// The number, and blanks around it.
const MARGIN: usize = 7;

pub(crate) struct Board {
    rows: Vec<Row>,
    /// How many lines of an answer the picture has place for; `None` where nothing is drawn again.
    lines: Option<usize>,
    /// Columns of an answer.
    columns: usize,
}

struct Row {
    question: &'static str,
    text: String,
    /// How many lines have been written for good.
    written: usize,
    summary: Option<String>,
}

impl Board {
    /// Begins with the questions.
    pub(crate) fn new(questions: &[&'static str], terminal: &mut Terminal) -> Self {
        let rows = questions.iter().map(|question| Row {
            question,
            text: String::new(),
            written: 0,
            summary: None,
        });
        let board = Self {
            rows: rows.collect(),
            lines: lines(questions.len(), terminal.height()).filter(|_| terminal.can_move()),
            columns: terminal.width().saturating_sub(MARGIN + 1),
        };
        if board.lines.is_some() {
            board.draw(true, terminal);
        } else {
            for (index, row) in board.rows.iter().enumerate() {
                terminal.line(&board.line(index, '?', row.question, terminal));
            }
        }
        board
    }

    /// More of an answer.
    pub(crate) fn add(&mut self, index: usize, text: &str, terminal: &mut Terminal) {
        self.rows[index].text += &printable(text);
        self.show(index, terminal);
    }

    /// An answer is whole.
    pub(crate) fn end(&mut self, index: usize, summary: String, terminal: &mut Terminal) {
        self.rows[index].summary = Some(summary);
        self.show(index, terminal);
    }

    /// All are whole: what is on the terminal stays.
    pub(crate) fn keep(&self, terminal: &mut Terminal) {
        if self.lines.is_some() {
            self.draw(false, terminal);
        }
        terminal.keep_picture();
    }

    fn show(&mut self, index: usize, terminal: &mut Terminal) {
        if self.lines.is_some() {
            self.draw(true, terminal);
            return;
        }
        for line in self.rows[index].settled(self.columns) {
            terminal.line(&self.line(index, '|', &line, terminal));
        }
        if let Some(summary) = &self.rows[index].summary {
            terminal.line(&self.line(index, '=', summary, terminal));
        }
    }

    /// A question, a piece of an answer or what came of it: the sign tells which.
    fn line(&self, index: usize, sign: char, text: &str, terminal: &Terminal) -> String {
        let number = terminal.nth(index, &format!("{} {sign}", index + 1));
        format!("  {number}  {text}")
    }

    /// The last lines of each answer below its question; with `room` for those that are yet to come.
    fn draw(&self, room: bool, terminal: &mut Terminal) {
        let place = self.lines.unwrap_or(MAX_LINES);
        let mut picture = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            picture.push(self.line(index, ' ', &terminal.nth(index, row.question), terminal));
            let all = wrap(&row.text, self.columns);
            let last = &all[all.len().saturating_sub(place)..];
            picture.extend(last.iter().map(|line| indented(line)));
            // Below a single one nothing moves when it grows.
            if room && self.rows.len() > 1 {
                picture.resize(picture.len() + place - last.len(), String::new());
            }
            let below = row.summary.as_deref().unwrap_or("…");
            picture.push(indented(&terminal.dim(below)));
        }
        terminal.picture(&picture);
    }
}

impl Row {
    /// The lines that have become final since the last time: the last one may grow as long as the answer is not whole.
    fn settled(&mut self, columns: usize) -> Vec<String> {
        let mut lines = wrap(&self.text, columns);
        if self.summary.is_none() {
            lines.pop();
        }
        let new = lines.split_off(self.written.min(lines.len()));
        self.written += new.len();
        new
    }
}

/// How many lines there are for each of so many answers beside its question, what came of it, and the cursor's own line;
/// `None` if there is no place for any.
fn lines(answers: usize, height: usize) -> Option<usize> {
    let each = height.saturating_sub(1) / answers.max(1);
    Some(each.saturating_sub(2).min(MAX_LINES)).filter(|lines| *lines > 0)
}

fn indented(text: &str) -> String {
    format!("{:MARGIN$}{text}", "")
}

/// A model's words without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control() || character.is_whitespace())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_and_only_when_it_is_full() {
        let mut row = Row {
            question: "",
            text: String::new(),
            written: 0,
            summary: None,
        };
        let mut written = Vec::new();
        for word in ["word", " by", " word", " by\nword"] {
            row.text += word;
            written.extend(row.settled(7));
        }
        assert_eq!(written, ["word by", "word by"]);
        row.summary = Some(String::new());
        assert_eq!(row.settled(7), ["word"]);
        assert!(row.settled(7).is_empty());
    }

    #[test]
    fn four_answers_fit_on_any_usual_terminal() {
        assert_eq!(lines(4, 24), Some(3));
        assert_eq!(lines(4, 50), Some(MAX_LINES));
        assert_eq!(lines(4, 13), Some(1));
        assert_eq!(lines(4, 12), None);
        assert_eq!(lines(1, 24), Some(MAX_LINES));
    }

    #[test]
    fn a_model_cannot_move_the_cursor() {
        assert_eq!(wrap(&printable("a\x1b[2J\rb\n"), 9), ["a[2J b"]);
    }
}
