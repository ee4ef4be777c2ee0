//! The nodes that operators registered.
//!
//! Invariant: no two nodes have one alias; an operator that asks for its alias again gets its node again.

use std::collections::{HashMap, HashSet};

/// A node as the network knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) alias: String,
}

#[derive(Debug, Default)]
pub(super) struct Nodes {
    known: HashMap<(String, String), Node>,
    taken: HashSet<String>,
}

impl Nodes {
    /// Marks an alias as somebody else's.
    pub(super) fn take(&mut self, alias: String) {
        self.taken.insert(alias);
    }

    /// The node for what this operator asked for, and whether it is new.
    pub(super) fn register(&mut self, operator: &str, asked: &str) -> (Node, bool) {
        let key = (operator.to_owned(), asked.to_owned());
        if let Some(node) = self.known.get(&key) {
            return (node.clone(), false);
        }
        let alias = self.free_alias(asked);
        let node = Node {
            id: format!("node_{}", self.known.len() + 1),
            alias: alias.clone(),
        };
        self.taken.insert(alias);
        self.known.insert(key, node.clone());
        (node, true)
    }

    /// `alias`, else `alias-a`, `alias-b`…, `alias-aa`.
    fn free_alias(&self, alias: &str) -> String {
        let suffixes = (1..)
            .flat_map(|length| ('a'..='z').map(move |letter| letter.to_string().repeat(length)));
        let mut candidates = std::iter::once(alias.to_owned())
            .chain(suffixes.map(|suffix| format!("{alias}-{suffix}")));
        candidates
            .find(|candidate| !self.taken.contains(candidate))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_that_is_taken_gets_a_suffix_and_keeps_it() {
        let mut nodes = Nodes::default();
        nodes.take("rig".to_owned());
        let (first, created) = nodes.register("op_a", "rig");
        assert_eq!((first.alias.as_str(), created), ("rig-a", true));
        assert_eq!(nodes.register("op_b", "rig").0.alias, "rig-b");
        assert_eq!(nodes.register("op_a", "rig"), (first, false));
    }
}
