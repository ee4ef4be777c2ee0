//! The page for people, and the files that it is made of: they are in the binary as they are in `page/`.
//!
//! Invariant: what the page may do is said by its headers, whatever gets into it: no script, style, picture or request
//! that is not of this server, no text that becomes markup, no frame of another site.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
        IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::telemetry::Metrics;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const HEADERS: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    // Asked for anew each time, and answered with 304 while it is the same.
    (CACHE_CONTROL, "no-cache"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// A file of the page.
#[derive(Debug)]
pub(super) struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

macro_rules! files {
    ($($path:literal $name:literal $content_type:ident),* $(,)?) => {
        [$(File {
            path: $path,
            content_type: $content_type,
            content: include_bytes!(concat!("page/", $name)),
        }),*]
    };
}

static FILES: [File; 10] = files![
    "/" "index.html" HTML,
    "/page.css" "page.css" CSS,
    "/icon.svg" "icon.svg" SVG,
    "/page.js" "page.js" SCRIPT,
    "/state.js" "state.js" SCRIPT,
    "/actions.js" "actions.js" SCRIPT,
    "/plots.js" "plots.js" SCRIPT,
    "/labels.js" "labels.js" SCRIPT,
    "/format.js" "format.js" SCRIPT,
    "/dom.js" "dom.js" SCRIPT,
];

impl File {
    /// The file at this path.
    pub(super) fn at(path: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| file.path == path)
    }

    /// The file, or that it is what the browser has.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let tag = self.tag();
        let known = request.get_all(IF_NONE_MATCH).iter();
        let is_known = known
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|known| known.trim().trim_start_matches("W/") == tag);
        let (status, content) = if is_known {
            (StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            (StatusCode::OK, Bytes::from_static(self.content))
        };
        let mut response = Response::new(Full::new(content));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Ok(tag) = tag.try_into() {
            headers.insert(ETAG, tag);
        }
        response
    }

    /// Version and revision, and a sum of the file: not every build is told its revision.
    fn tag(&self) -> String {
        let mut sum = DefaultHasher::new();
        self.content.hash(&mut sum);
        let (version, revision, sum) = (Metrics::VERSION, Metrics::REVISION, sum.finish());
        format!("\"{version}-{revision}-{sum:016x}\"")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, path::Path, str};

    use super::*;

    /// One second on a slow telephone's link.
    const PAGE_AT_MOST: usize = 61 << 10;

    fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES
            .iter()
            .map(|file| (file.path, str::from_utf8(file.content).unwrap()))
    }

    fn with_tag(tag: &str) -> StatusCode {
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, tag.parse().unwrap())]);
        File::at("/").unwrap().answer(&headers).status()
    }

    #[test]
    fn the_page_is_small_and_has_all_files_of_its_folder() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes <= PAGE_AT_MOST, "{bytes} bytes");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
        assert_eq!(fs::read_dir(folder).unwrap().count(), FILES.len());
    }

    #[test]
    fn what_one_file_names_another_one_is() {
        for (path, text) in texts() {
            for way in [" from \"./", "href=\"/", "src=\"/"] {
                let names = text.split(way).skip(1);
                for name in names.filter_map(|rest| rest.split('"').next()) {
                    let is_endpoint = ["status", "readyz", "metrics"].contains(&name);
                    let is_file = File::at(&format!("/{name}")).is_some();
                    assert!(is_file || is_endpoint, "{path}: {name}");
                }
            }
        }
    }

    #[test]
    fn nothing_foreign_can_become_markup_or_leave_the_origin() {
        for (path, text) in texts() {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                " onclick=",
                "<style",
                "https://",
            ] {
                assert!(!text.contains(way), "{path} has {way}");
            }
            // The one URL is the name of SVG's elements.
            let urls = text.split("http://").skip(1);
            assert!(
                urls.into_iter()
                    .all(|url| url.starts_with("www.w3.org/2000/svg")),
                "{path}"
            );
        }
    }

    #[test]
    fn a_browser_that_has_the_page_is_told_so_and_another_gets_the_new_one() {
        let fresh = File::at("/").unwrap().answer(&HeaderMap::new());
        assert_eq!(fresh.status(), StatusCode::OK);
        let tag = fresh.headers()[ETAG].to_str().unwrap().to_owned();
        assert_eq!(with_tag(&tag), StatusCode::NOT_MODIFIED);
        assert_eq!(
            with_tag(&format!("\"old\", W/{tag}")),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(with_tag("\"0.0.9-unknown-0\""), StatusCode::OK);
        let other = File::at("/page.js").unwrap().answer(&HeaderMap::new());
        assert_ne!(other.headers()[ETAG].to_str().unwrap(), tag);
    }
}
