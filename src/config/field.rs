//! How one setting is read: from text to a [`Field`], which keeps what is wrong with it, to its [`Slot`] among the
//! settled settings.
//!
//! Invariant: reading never fails, and a value that must not be shown is known by its type.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::{
    error::{ConfigError, Invalid},
    plain::{Blanks, refuse_invisible, refuse_wrapping},
};

/// A setting's type. `Display` writes what may be logged: a type that holds something private says so with
/// [`Value::PRIVATE`] and writes a placeholder, so no caller can forget to redact it.
pub(super) trait Value: fmt::Display + Sized {
    /// Whether the value must not be shown.
    const PRIVATE: bool = false;

    /// Where its text may have blanks.
    const BLANKS: Blanks = Blanks::Nowhere;

    /// Whether it is a name for people, in which joiners draw emoji and letters.
    const FOR_PEOPLE: bool = false;

    /// Reads it from text that is not blank, and in which nothing is hidden and nothing is around the value.
    fn parse(text: &str) -> Result<Self, Invalid>;

    /// Reads it from what a variable holds, unless that can mean no value of any type.
    fn read(text: &str) -> Result<Self, Invalid> {
        refuse_invisible::<Self>(text)?;
        refuse_wrapping::<Self>(text)?;
        Self::parse(text)
    }
}

/// What one variable held. Reading it from the environment never fails, so that one mistake does not hide the next.
#[derive(Debug, Default)]
pub(super) enum Field<V> {
    /// Not set, and without a default that is a plain value.
    #[default]
    Missing,
    /// Set, or its default.
    Right(V),
    /// Set to something that is refused.
    Wrong(Invalid),
    /// Not set, and its default follows from another setting that is itself missing or wrong.
    Undecided,
}

impl<'de, V: Value> Deserialize<'de> for Field<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match V::read(&text) {
            Ok(value) => Self::Right(value),
            Err(invalid) => Self::Wrong(invalid),
        })
    }
}

impl<V> Field<V> {
    /// The value, if there is a right one.
    pub(super) fn right(&self) -> Option<&V> {
        match self {
            Self::Right(value) => Some(value),
            Self::Missing | Self::Wrong(_) | Self::Undecided => None,
        }
    }

    /// Whether the variable was set, rightly or not.
    pub(super) fn is_set(&self) -> bool {
        matches!(self, Self::Right(_) | Self::Wrong(_))
    }

    /// Adds what is wrong with it to these errors, if something is.
    pub(super) fn tell_wrong(self, name: &'static str, errors: &mut Vec<ConfigError>) {
        if let Self::Wrong(reason) = self {
            errors.push(ConfigError::Invalid { name, reason });
        }
    }

    /// Fills in a default that had to be found out; `None`: what it follows from is not known.
    pub(super) fn fill(&mut self, default: Option<Result<V, Invalid>>) {
        if !matches!(self, Self::Missing) {
            return;
        }
        *self = match default {
            Some(Ok(value)) => Self::Right(value),
            Some(Err(invalid)) => Self::Wrong(invalid),
            None => Self::Undecided,
        };
    }
}

/// A place in the settled settings: `V` where there is always a value, `Option<V>` where there may be none.
pub(super) trait Slot: Sized {
    /// The type of the value.
    type Value: Value;

    /// The slot for what the variable held; `None` where a value is needed and there is none.
    fn from_value(value: Option<Self::Value>) -> Option<Self>;

    /// Takes a field's value, or tells what is wrong with it.
    fn into_values(
        field: Field<Self::Value>,
        name: &'static str,
        help: &'static str,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        match field {
            Field::Right(value) => Self::from_value(Some(value)),
            Field::Missing => Self::from_value(None).or_else(|| {
                errors.push(ConfigError::Missing { name, help });
                None
            }),
            Field::Wrong(reason) => {
                errors.push(ConfigError::Invalid { name, reason });
                None
            }
            Field::Undecided => None,
        }
    }
}

impl<V: Value> Slot for V {
    type Value = V;

    fn from_value(value: Option<V>) -> Option<Self> {
        value
    }
}

impl<V: Value> Slot for Option<V> {
    type Value = V;

    fn from_value(value: Option<V>) -> Option<Self> {
        Some(value)
    }
}
