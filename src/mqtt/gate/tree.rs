//! Who subscribed to what: a tree of filter levels, walked once a message. Knows nothing of connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashMap;

use crate::mqtt::topic::{self, Filter};

/// The subscriptions of all sessions; `S` is a session's handle and what it asked for.
#[derive(Debug)]
pub struct Tree<S> {
    root: Node<S>,
    count: usize,
    levels: usize,
}

#[derive(Debug)]
struct Node<S> {
    children: FxHashMap<Box<str>, Node<S>>,
    /// Below `+`.
    any: Option<Box<Node<S>>>,
    /// Filters that end here.
    here: Subscribers<S>,
    /// Filters that end here with `/#`.
    below: Subscribers<S>,
}

#[derive(Debug)]
struct Subscribers<S> {
    each: Vec<Entry<S>>,
    groups: Vec<Group<S>>,
}

#[derive(Debug)]
struct Entry<S> {
    owner: u64,
    subscription: S,
}

/// The members of one `$share` group, of whom each message reaches one.
#[derive(Debug)]
pub struct Group<S> {
    name: Box<str>,
    members: Vec<Entry<S>>,
    turn: AtomicUsize,
}

impl<S> Group<S> {
    /// The members, beginning with the one whose turn it is.
    pub fn by_turn(&self) -> impl Iterator<Item = &S> {
        let from = self.turn.fetch_add(1, Ordering::Relaxed) % self.members.len().max(1);
        self.members[from..].iter().chain(&self.members[..from]).map(|entry| &entry.subscription)
    }
}

/// What a message's topic matched.
#[derive(Debug)]
pub enum Match<'a, S> {
    /// One subscription.
    One(&'a S),
    /// A group: choose a member.
    Group(&'a Group<S>),
}

impl<S> Default for Tree<S> {
    fn default() -> Self {
        Tree { root: Node::default(), count: 0, levels: 0 }
    }
}

impl<S> Default for Node<S> {
    fn default() -> Self {
        Node { children: FxHashMap::default(), any: None, here: Subscribers::default(), below: Subscribers::default() }
    }
}

impl<S> Default for Subscribers<S> {
    fn default() -> Self {
        Subscribers { each: Vec::new(), groups: Vec::new() }
    }
}

impl<S> Tree<S> {
    /// Subscriptions held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Levels of all filters held: what the tree's size is bounded by.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Adds or replaces `owner`'s subscription to `filter`; answers whether it is new.
    pub fn insert(&mut self, filter: Filter<'_>, owner: u64, subscription: S) -> bool {
        let mut node = &mut self.root;
        let mut below = false;
        for level in filter.filter.split('/') {
            match level {
                "#" => below = true,
                "+" => node = node.any.get_or_insert_default(),
                level => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), Node::default());
                    }
                    let Some(child) = node.children.get_mut(level) else { return false };
                    node = child;
                }
            }
        }
        let subscribers = if below { &mut node.below } else { &mut node.here };
        let new = subscribers.insert(filter.group, Entry { owner, subscription });
        if new {
            self.count += 1;
            self.levels += levels(filter);
        }
        new
    }

    /// Removes `owner`'s subscription to `filter`; answers whether there was one.
    pub fn remove(&mut self, filter: Filter<'_>, owner: u64) -> bool {
        let removed = self.root.remove(filter.filter, filter.group, owner);
        if removed {
            self.count -= 1;
            self.levels -= levels(filter);
        }
        removed
    }

    /// Hands every match of `topic` to `each`.
    pub fn matches<'a>(&'a self, topic: &str, each: &mut impl FnMut(Match<'a, S>)) {
        let hidden = topic::is_hidden(topic);
        self.root.visit(Some(topic), hidden, each);
    }
}

impl<S> Node<S> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    /// `rest` is what of the topic lies below this node; `hidden` holds at the root of a `$` topic only. As deep as the
    /// deepest filter at the most, which is bounded.
    fn visit<'a>(&'a self, rest: Option<&str>, hidden: bool, each: &mut impl FnMut(Match<'a, S>)) {
        if !hidden {
            self.below.visit(each);
        }
        let Some(rest) = rest else {
            self.here.visit(each);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(any) = &self.any
            && !hidden
        {
            any.visit(rest, false, each);
        }
        if let Some(child) = self.children.get(level) {
            child.visit(rest, false, each);
        }
    }

    fn remove(&mut self, filter: &str, group: Option<&str>, owner: u64) -> bool {
        let (level, rest) = match filter.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (filter, None),
        };
        if level == "#" {
            return self.below.remove(group, owner);
        }
        let child = if level == "+" { self.any.as_deref_mut() } else { self.children.get_mut(level) };
        let Some(child) = child else { return false };
        let removed = match rest {
            Some(rest) => child.remove(rest, group, owner),
            None => child.here.remove(group, owner),
        };
        if child.is_empty() {
            if level == "+" {
                self.any = None;
            } else {
                self.children.remove(level);
            }
        }
        removed
    }
}

impl<S> Subscribers<S> {
    fn is_empty(&self) -> bool {
        self.each.is_empty() && self.groups.is_empty()
    }

    fn visit<'a>(&'a self, each: &mut impl FnMut(Match<'a, S>)) {
        self.each.iter().for_each(|entry| each(Match::One(&entry.subscription)));
        self.groups.iter().for_each(|group| each(Match::Group(group)));
    }

    fn insert(&mut self, group: Option<&str>, entry: Entry<S>) -> bool {
        let Some(name) = group else { return put(&mut self.each, entry) };
        if let Some(group) = self.groups.iter_mut().find(|group| &*group.name == name) {
            return put(&mut group.members, entry);
        }
        self.groups.push(Group { name: name.into(), members: vec![entry], turn: AtomicUsize::new(0) });
        true
    }

    fn remove(&mut self, group: Option<&str>, owner: u64) -> bool {
        let Some(name) = group else { return take(&mut self.each, owner) };
        let Some(at) = self.groups.iter().position(|group| &*group.name == name) else { return false };
        let removed = take(&mut self.groups[at].members, owner);
        if self.groups[at].members.is_empty() {
            self.groups.swap_remove(at);
        }
        removed
    }
}

fn levels(filter: Filter<'_>) -> usize {
    filter.filter.split('/').count()
}

fn put<S>(entries: &mut Vec<Entry<S>>, entry: Entry<S>) -> bool {
    if let Some(old) = entries.iter_mut().find(|old| old.owner == entry.owner) {
        *old = entry;
        return false;
    }
    entries.push(entry);
    true
}

fn take<S>(entries: &mut Vec<Entry<S>>, owner: u64) -> bool {
    match entries.iter().position(|entry| entry.owner == owner) {
        Some(at) => {
            entries.swap_remove(at);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(tree: &Tree<u64>, topic: &str) -> Vec<u64> {
        let mut found = Vec::new();
        tree.matches(topic, &mut |hit| match hit {
            Match::One(&owner) => found.push(owner),
            Match::Group(group) => found.extend(group.by_turn().next()),
        });
        found.sort_unstable();
        found
    }

    #[test]
    fn a_group_takes_turns_and_is_gone_with_its_last_member() {
        let mut tree = Tree::default();
        let filter = topic::filter("$share/g/a/+").unwrap();
        tree.insert(filter, 1, 1);
        tree.insert(filter, 2, 2);
        assert_eq!([found(&tree, "a/x"), found(&tree, "a/x"), found(&tree, "a/x")].concat(), [1, 2, 1]);
        assert!(tree.remove(filter, 1) && tree.remove(filter, 2) && !tree.remove(filter, 2));
        assert!(found(&tree, "a/x").is_empty());
        assert!(tree.root.is_empty() && tree.len() == 0 && tree.levels() == 0);
    }

    #[test]
    fn a_plain_and_a_shared_subscription_of_one_client_to_one_filter_live_side_by_side() {
        let mut tree = Tree::default();
        tree.insert(topic::filter("a").unwrap(), 1, 1);
        tree.insert(topic::filter("$share/g/a").unwrap(), 1, 1);
        assert_eq!(found(&tree, "a"), [1, 1]);
        tree.remove(topic::filter("a").unwrap(), 1);
        assert_eq!(found(&tree, "a"), [1]);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "$a"])
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_matching_one_by_one_finds(
            filters in prop::collection::vec(
                (prop::collection::vec(prop_oneof![3 => level(), 2 => Just("+")], 1..4), any::<bool>()), 1..12),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..8),
            dropped in any::<prop::sample::Index>(),
        ) {
            let filters: Vec<String> = filters.into_iter().map(|(mut levels, hash)| {
                if hash { levels.push("#") }
                levels.join("/")
            }).filter(|filter| !filter.is_empty()).collect();
            prop_assume!(!filters.is_empty());
            let mut tree = Tree::default();
            for (n, filter) in filters.iter().enumerate() {
                tree.insert(topic::filter(filter).unwrap(), n as u64, n as u64);
            }
            let dropped = dropped.index(filters.len());
            prop_assert!(tree.remove(topic::filter(&filters[dropped]).unwrap(), dropped as u64));
            for name in topics.iter().map(|levels| levels.join("/")).filter(|name| !name.is_empty()) {
                let expected: Vec<u64> = (0..filters.len())
                    .filter(|&n| n != dropped && topic::matches(&filters[n], &name))
                    .map(|n| n as u64)
                    .collect();
                prop_assert_eq!(found(&tree, &name), expected, "{:?} on {}", filters, name);
            }
            for (n, filter) in filters.iter().enumerate() {
                tree.remove(topic::filter(filter).unwrap(), n as u64);
            }
            prop_assert!(tree.root.is_empty() && tree.len() == 0 && tree.levels() == 0);
        }
    }
}
