use std::{cell::RefCell, rc::Rc};

use proptest::prelude::*;

use super::*;

fn node(kind: Kind) -> Arc<Node> {
    Arc::new(Node {
        kind,
        ..Node::folder()
    })
}

/// Folders as maps in maps, as a file system has them: slow, and nothing to get wrong.
mod naive {
    use super::*;

    /// An entry of a folder: names of one file are the same `Rc`.
    #[derive(Clone)]
    pub enum Item {
        Folder(Rc<Folder>),
        Other(Rc<Node>),
    }

    pub struct Folder {
        pub node: RefCell<Node>,
        pub items: RefCell<BTreeMap<Vec<u8>, Item>>,
    }

    impl Folder {
        pub fn new() -> Rc<Self> {
            Rc::new(Self {
                node: RefCell::new(Node::folder()),
                items: RefCell::default(),
            })
        }
    }

    /// Walks to the folder of a path. Folders that are not there are made, where `make` says so.
    /// The outer `None`: it leads in circles, or through a file.
    pub fn walk(
        root: &Rc<Folder>,
        path: &[u8],
        make: bool,
    ) -> Option<Option<(Rc<Folder>, Vec<u8>)>> {
        let mut way = vec![Rc::clone(root)];
        let mut ahead: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                // A path that ends so names no entry.
                assert!(!ahead.is_empty());
                continue;
            }
            let here = Rc::clone(way.last().unwrap());
            if ahead.is_empty() {
                return Some(Some((here, name)));
            }
            let item = here.items.borrow().get(&name).cloned();
            let up = ahead.iter().any(|name| name == b"..");
            match item {
                Some(Item::Folder(folder)) => way.push(folder),
                Some(Item::Other(node)) => match &node.kind {
                    Kind::Symlink { target } => {
                        links += 1;
                        if links > LINKS {
                            return None;
                        }
                        if target.starts_with(b"/") {
                            way.truncate(1);
                        }
                        ahead.extend(components(target).map(<[u8]>::to_vec));
                    }
                    _ if make || up => return None,
                    _ => return Some(None),
                },
                None if up => return None,
                None if make => {
                    let folder = Folder::new();
                    let item = Item::Folder(Rc::clone(&folder));
                    here.items.borrow_mut().insert(name, item);
                    way.push(folder);
                }
                None => return Some(None),
            }
        }
        Some(None)
    }

    pub fn apply(root: &Rc<Folder>, layer: &[Change]) -> Option<()> {
        for change in layer {
            match change {
                Change::Whiteout(path) => {
                    if let Some((folder, name)) = walk(root, path, false)? {
                        folder.items.borrow_mut().remove(&name);
                    }
                }
                Change::Opaque(path) => {
                    if let Some((folder, name)) = walk(root, path, false)?
                        && let Some(Item::Folder(folder)) = folder.items.borrow().get(&name)
                    {
                        folder.items.borrow_mut().clear();
                    }
                }
                _ => {}
            }
        }
        for change in layer {
            match change {
                Change::Put(path, new) => {
                    let (folder, name) = walk(root, path, true)??;
                    let mut items = folder.items.borrow_mut();
                    match (items.get(&name), &new.kind) {
                        (Some(Item::Folder(old)), Kind::Folder) => {
                            *old.node.borrow_mut() = Node::clone(new);
                        }
                        (_, Kind::Folder) => {
                            let made = Folder::new();
                            *made.node.borrow_mut() = Node::clone(new);
                            items.insert(name, Item::Folder(made));
                        }
                        _ => {
                            items.insert(name, Item::Other(Rc::new(Node::clone(new))));
                        }
                    }
                }
                Change::Link(path, target) => {
                    let (folder, name) = walk(root, target, false)??;
                    let target = folder.items.borrow().get(&name).cloned();
                    let Some(target @ Item::Other(_)) = target else {
                        return None;
                    };
                    let (folder, name) = walk(root, path, true)??;
                    folder.items.borrow_mut().insert(name, target);
                }
                _ => {}
            }
        }
        Some(())
    }

    /// All entries: path, node, and paths that are the same file.
    pub fn list(root: &Rc<Folder>) -> BTreeMap<Vec<u8>, (Node, Vec<Vec<u8>>)> {
        let mut found: Vec<(Vec<u8>, Node, usize)> = Vec::new();
        let mut ahead = vec![(Vec::new(), Item::Folder(Rc::clone(root)))];
        while let Some((path, item)) = ahead.pop() {
            match item {
                Item::Folder(folder) => {
                    for (name, item) in folder.items.borrow().iter() {
                        ahead.push((joined(&path, name), item.clone()));
                    }
                    let node = folder.node.borrow().clone();
                    found.push((path, node, Rc::as_ptr(&folder) as usize));
                }
                Item::Other(node) => {
                    found.push((path, Node::clone(&node), Rc::as_ptr(&node) as usize));
                }
            }
        }
        let mates = |id| {
            let mut names: Vec<Vec<u8>> = found
                .iter()
                .filter(|(_, _, other)| *other == id)
                .map(|(path, ..)| path.clone())
                .collect();
            names.sort();
            names
        };
        found
            .iter()
            .map(|(path, node, id)| (path.clone(), (node.clone(), mates(*id))))
            .collect()
    }
}

fn listed(tree: &Tree) -> BTreeMap<Vec<u8>, (Node, Vec<Vec<u8>>)> {
    let mates = |entry: &Entry| match entry.links {
        0 => vec![entry.path.to_vec()],
        links => tree
            .entries()
            .iter()
            .filter(|other| other.links == links)
            .map(|other| other.path.to_vec())
            .collect(),
    };
    tree.entries()
        .iter()
        .map(|entry| {
            (
                entry.path.to_vec(),
                (Node::clone(&entry.node), mates(entry)),
            )
        })
        .collect()
}

fn path() -> impl Strategy<Value = ByteString> {
    let name = prop::sample::select(vec!["a", "b", "c", "a-"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/").as_str().into())
}

fn change() -> impl Strategy<Value = Change> {
    let targets = vec!["a", "/b", "../c", "b/../a", "c/a", "../../b/c", "/a/b"];
    let target = prop::sample::select(targets);
    prop_oneof![
        3 => (path(), 0u64..3).prop_map(|(path, n)| {
            let sha256 = Digest([n as u8; 32]);
            Change::Put(path, node(Kind::File { size: n, sha256, reduced: None }))
        }),
        3 => (path(), 0u16..2).prop_map(|(path, mode)| {
            Change::Put(path, Arc::new(Node { mode: Mode(mode), ..Node::folder() }))
        }),
        2 => (path(), target).prop_map(|(path, target)| {
            Change::Put(path, node(Kind::Symlink { target: target.into() }))
        }),
        2 => (path(), path()).prop_map(|(path, target)| Change::Link(path, target)),
        1 => path().prop_map(Change::Whiteout),
        1 => path().prop_map(Change::Opaque),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn layers_give_what_maps_in_maps_give(
        layers in prop::collection::vec(prop::collection::vec(change(), 0..8), 1..4)
    ) {
        let root = naive::Folder::new();
        let expected = layers
            .iter()
            .try_for_each(|layer| naive::apply(&root, layer))
            .map(|()| naive::list(&root));
        let found = Tree::flatten(layers.iter().map(Vec::as_slice)).ok();
        prop_assert_eq!(found.as_ref().map(listed), expected);
        if let Some(tree) = found {
            let again = Tree::sorted(tree.entries().to_vec()).unwrap();
            prop_assert_eq!(again, tree);
        }
    }
}

#[test]
fn a_tree_is_sorted_and_has_each_path_once() {
    let file = |path: &str| Entry {
        path: path.into(),
        node: node(Kind::Pipe),
        links: 0,
    };
    assert!(Tree::sorted(vec![file("a"), file("a")]).is_err());
    assert!(Tree::sorted(vec![file("b"), file("a")]).is_err());
}
