//! The kinds of work that the network asks for.

use crate::label::labels;

labels! {
    /// A kind of work, as metrics and the log name it.
    pub enum Operation {
        /// A chat.
        Chat = "chat",
        /// Text to be spoken.
        Speech = "speech",
        /// The network's test of a model.
        Interview = "interview",
    }
}
