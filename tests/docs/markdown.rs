//! What a Markdown file has that others refer to, as GitHub reads it: links, images, and the anchors of headings. What looks
//! like one of these in code is none.

use std::collections::BTreeSet;

use pulldown_cmark::{BrokenLink, Event, LinkType, Options, Parser, Tag, TagEnd};

#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The targets of links and images, those by reference too.
    pub(crate) targets: Vec<String>,
    /// What can stand behind `#`.
    pub(crate) anchors: BTreeSet<String>,
    /// Links whose reference is nowhere defined, and links in HTML, which nobody would check.
    pub(crate) unclear: Vec<String>,
}

impl Page {
    pub(crate) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut undefined = Vec::new();
        let broken = |link: BrokenLink| {
            // A word in brackets alone is most likely meant as that.
            if matches!(link.link_type, LinkType::Reference | LinkType::Collapsed) {
                undefined.push(format!("[{}] is defined nowhere", link.reference));
            }
            None
        };
        let options =
            Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
        let mut heading: Option<String> = None;
        for event in Parser::new_with_broken_link_callback(text, options, Some(broken)) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.targets.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.add_anchor(&heading.take().unwrap_or_default());
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                Event::Html(html) | Event::InlineHtml(html) if has_link(&html) => {
                    page.unclear.push(format!("{} is no Markdown", html.trim()));
                }
                _ => {}
            }
        }
        page.unclear.append(&mut undefined);
        page
    }

    /// The first heading of a name has it as its anchor, the next ones with a number behind it.
    fn add_anchor(&mut self, heading: &str) {
        let slug = slug(heading);
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let mut candidates = std::iter::once(slug.clone()).chain(numbered);
        let free = candidates.find(|candidate| !self.anchors.contains(candidate));
        self.anchors.extend(free);
    }
}

fn has_link(html: &str) -> bool {
    html.contains("href=") || html.contains("src=")
}

fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    });
    kept.collect::<String>().to_lowercase()
}

#[test]
fn links_are_found_in_every_form_and_not_in_code() {
    let page = Page::read(
        "[a](one.md) ![b](two.svg) [c][ref] [ref] <https://three.example>\n\n| x |\n|---|\n| [d](four.md#e) |\n\n\
         `[no](no.md)` and [text] alone\n\n```\n[no](no.md)\n```\n\n[ref]: five.md\n",
    );
    let targets = [
        "one.md",
        "two.svg",
        "five.md",
        "five.md",
        "https://three.example",
        "four.md#e",
    ];
    assert_eq!(page.targets, targets);
    assert_eq!(page.unclear, [""; 0]);
}

#[test]
fn a_reference_that_is_not_defined_and_a_link_in_html_are_told() {
    let page = Page::read("[a][nope] and <a href=\"x.md\">x</a>\n");
    assert_eq!(
        page.unclear,
        [
            "<a href=\"x.md\"> is no Markdown",
            "[nope] is defined nowhere"
        ]
    );
}

#[test]
fn anchors_are_those_that_github_makes() {
    let page = Page::read(
        "# What happens, and why?\n## `PIN_CAPACITY` & co.\n## Alerts\n## Alerts\n## Größe\n\nSet\n---\n\n```\n# none\n```\n",
    );
    let anchors = [
        "what-happens-and-why",
        "pin_capacity--co",
        "alerts",
        "alerts-1",
        "größe",
        "set",
    ];
    assert_eq!(page.anchors, anchors.map(str::to_owned).into());
}
