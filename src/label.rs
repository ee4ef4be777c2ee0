//! Closed sets of names: error codes, reasons, frame types. One declaration gives the enum, its words, and the list
//! of all of them, from which every metric's series are made at start.

/// A value of a closed set that has one fixed word on the wire, in logs and as a metric's label.
pub trait Label: Copy + Eq + 'static {
    /// Every value of the set, in order of declaration; `ALL[i].index() == i`.
    const ALL: &'static [Self];

    /// The word for it.
    fn as_str(self) -> &'static str;

    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;

    /// The value that has exactly this word.
    fn of(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|value| value.as_str() == word)
    }
}

/// Declares an enum that implements [`Label`], `Display` and `Debug` with the given words.
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$doc])* $variant,)+ }

        impl $crate::label::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::label::Label::as_str(*self))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::label::Label::as_str(*self))
            }
        }
    };
}

pub(crate) use labels;
