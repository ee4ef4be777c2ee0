//! What the stand-ins of model servers have in common: the record of what they were asked, the plan of what goes wrong,
//! and bodies that are written while they are sent. It knows no server's dialect.

mod body;
mod controls;
mod plan;
mod record;
mod respond;
mod words;

pub use controls::Controls;
pub use record::{Chats, Request};
pub use words::spoken;

pub(crate) use body::{Body, Gone, Write, Writer, body};
pub(crate) use controls::controlled;
pub(crate) use record::ChatGuard;
pub(crate) use respond::{canned, respond, serve, whole};
pub(crate) use words::{text, words};
