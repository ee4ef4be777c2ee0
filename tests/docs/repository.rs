//! The files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file beneath a directory, without what tools leave there: hidden directories, caches and what is built.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = entry.file_name();
        let is_hidden = name.to_string_lossy().starts_with('.');
        let is_cache = name == "target" || path.join("CACHEDIR.TAG").exists();
        if kind.is_file() {
            found.push(path);
        } else if kind.is_dir() && !is_hidden && !is_cache {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

pub(crate) fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}
