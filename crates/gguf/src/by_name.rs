//! A list in file order that can also be asked by name.
//!
//! A sorted permutation instead of a hash map: no second copy of a hundred thousand names, and
//! nothing that a hostile choice of names could slow down.

/// Something a container lists under a name.
pub(crate) trait Named {
    fn name(&self) -> &str;
}

/// Items in file order, each name unique.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    items: Vec<T>,
    sorted: Vec<usize>,
}

impl<T: Named> ByName<T> {
    /// Indexes the list, or gives back the second of two items with one name.
    pub(crate) fn new(mut items: Vec<T>) -> Result<ByName<T>, T> {
        let mut sorted: Vec<usize> = (0..items.len()).collect();
        sorted.sort_unstable_by(|&a, &b| items[a].name().cmp(items[b].name()).then(a.cmp(&b)));
        let twice = sorted.windows(2).find(|w| items[w[0]].name() == items[w[1]].name());
        match twice.map(|w| w[1]) {
            Some(second) => Err(items.swap_remove(second)),
            None => Ok(ByName { items, sorted }),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        let found = self.sorted.binary_search_by(|&i| self.items[i].name().cmp(name)).ok()?;
        Some(&self.items[self.sorted[found]])
    }

    /// The items, in file order.
    pub(crate) fn in_order(&self) -> &[T] {
        &self.items
    }

    pub(crate) fn into_items(self) -> Vec<T> {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &str {
        fn name(&self) -> &str {
            self
        }
    }

    #[test]
    fn order_is_kept_and_names_are_found() {
        let list = ByName::new(vec!["c", "a", "b"]).unwrap();
        assert_eq!(list.in_order(), ["c", "a", "b"]);
        assert_eq!(list.get("a"), Some(&"a"));
        assert_eq!(list.get("d"), None);
    }

    #[test]
    fn a_name_listed_twice_is_given_back() {
        assert_eq!(ByName::new(vec!["c", "a", "c"]).unwrap_err(), "c");
    }
}
