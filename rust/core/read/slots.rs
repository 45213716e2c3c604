//! `FieldTree`: the fields that templates show, each with a slot. `Slots`: the texts of one record.
//!
//! A reader fills the slots with text borrowed from its record, without a tree of values in
//! between. A reader of columns may read the columns of the tree alone.

use std::borrow::Cow;

use super::view::Renames;

/// The most fields that have slots.
pub(crate) const MAX_SLOTS: usize = 16;
/// The most nodes of a tree: a reader keeps a bit for each.
const MAX_NODES: usize = 64;

/// The text of each wanted field of a record; `None` for a missing field.
pub(crate) type Slots<'a> = [Option<Cow<'a, str>>; MAX_SLOTS];

/// The fields that templates show.
#[derive(Debug, Clone)]
pub struct FieldTree {
    root: Node,
    /// The number of nodes.
    nodes: usize,
    /// The number of slots.
    slots: usize,
}

/// A name on the way to wanted fields. A node without slot and children declines its record.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// The index of the node among all nodes.
    pub(super) number: usize,
    pub(super) children: Vec<(String, Node)>,
    pub(super) slot: Option<usize>,
}

impl Node {
    /// Returns the node of the field `name`.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(key, _)| key == name).map(|(_, node)| node)
    }

    /// Returns whether a record with this field is left to the fields path.
    fn declines(&self) -> bool {
        self.slot.is_none() && self.children.is_empty()
    }
}

impl FieldTree {
    /// Returns a tree without fields. A record with a field named `declined` is left to the fields
    /// path.
    pub(crate) fn new(declined: Option<&str>) -> Self {
        let mut tree = Self { root: Node::default(), nodes: 1, slots: 0 };
        if let Some(name) = declined {
            let node = Node { number: tree.nodes, ..Node::default() };
            tree.root.children.push((name.to_owned(), node));
            tree.nodes += 1;
        }
        tree
    }

    /// Returns the slot of the field at `path`, and adds the field if it is new. Returns `None` if
    /// a field would be both text and an object, or if there are too many fields.
    pub(crate) fn slot_of(&mut self, path: &[String]) -> Option<usize> {
        let Self { root, nodes, slots } = self;
        let mut node = root;
        for name in path {
            if node.slot.is_some() {
                return None;
            }
            let index = node.children.iter().position(|(key, _)| key == name);
            let index = index.unwrap_or_else(|| {
                let child = Node { number: *nodes, ..Node::default() };
                node.children.push((name.clone(), child));
                *nodes += 1;
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        if !node.children.is_empty() {
            return None;
        }
        if node.slot.is_none() {
            node.slot = Some(*slots);
            *slots += 1;
        }
        node.slot.filter(|_| *nodes <= MAX_NODES && *slots <= MAX_SLOTS)
    }

    /// Returns the tree by the names that fields have before they are renamed; `None` if it has too
    /// many. A record with a field that has a new name already is left to the fields path.
    pub(super) fn renamed(&self, renames: &Renames) -> Option<Self> {
        let mut tree = Self { root: Node::default(), ..self.clone() };
        for (name, node) in &self.root.children {
            let old = renames.iter().find(|(_, new)| *new == name).map(|(old, _)| old);
            // A field that has another name by then is missing.
            if old.is_some() || !renames.contains_key(name) {
                tree.root.children.push((old.unwrap_or(name).clone(), node.clone()));
            }
        }
        for new in renames.values().filter(|new| !renames.contains_key(*new)) {
            let node = Node { number: tree.nodes, ..Node::default() };
            tree.root.children.push((new.clone(), node));
            tree.nodes += 1;
        }
        (tree.nodes <= MAX_NODES).then_some(tree)
    }

    /// Returns the node above all fields.
    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Returns whether a column that lies at `path` may hold a wanted field.
    pub(super) fn reaches(&self, path: &[String]) -> bool {
        let mut node = &self.root;
        for name in path {
            let Some(child) = node.child(name) else { return false };
            if child.children.is_empty() {
                return true;
            }
            node = child;
        }
        true
    }

    /// Returns each slot with the path of its field; `None` if all records are left to the fields
    /// path, since one of the `names` of their columns declines them.
    pub(super) fn paths(&self, names: impl Fn(&str) -> bool) -> Option<Vec<(usize, Vec<String>)>> {
        fn add(node: &Node, path: &mut Vec<String>, out: &mut Vec<(usize, Vec<String>)>) {
            out.extend(node.slot.map(|slot| (slot, path.clone())));
            for (name, child) in &node.children {
                path.push(name.clone());
                add(child, path, out);
                path.pop();
            }
        }
        if self.root.children.iter().any(|(name, node)| node.declines() && names(name)) {
            return None;
        }
        let mut paths = Vec::with_capacity(self.slots);
        add(&self.root, &mut Vec::new(), &mut paths);
        Some(paths)
    }

    /// Returns the slot of each column that templates show as text; `None` if all records with
    /// these columns are left to the fields path.
    pub(super) fn columns(&self, names: &[String]) -> Option<Vec<Option<usize>>> {
        let slot_of = |name: &String| match self.root.child(name) {
            Some(node) if node.declines() => None,
            node => Some(node.and_then(|node| node.slot)),
        };
        names.iter().map(slot_of).collect()
    }
}
