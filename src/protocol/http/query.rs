//! The query of a request target: form-urlencoded pairs, decoded as they are asked for.
//!
//! Nothing is allocated for a value that has no escape in it. Bytes that are not UTF-8 after
//! decoding become U+FFFD, so that no query is an error. Tests below.

use std::borrow::Cow;

/// A raw query, without its question mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query<'q>(pub(crate) &'q str);

impl<'q> Query<'q> {
    /// The value of the first pair of this name; empty when the pair has no `=`.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'q, str>> {
        // Every poll asks for three names: only a pair that has an escape in it is decoded.
        let plain = |text: &str| memchr::memchr2(b'%', b'+', text.as_bytes()).is_none();
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (plain(key), plain(value)) {
                (true, _) if key != name => None,
                (true, true) => (!pair.is_empty()).then_some(Cow::Borrowed(value)),
                _ => form_urlencoded::parse(pair.as_bytes())
                    .find_map(|(key, value)| (key == name).then_some(value)),
            }
        })
    }

    /// All pairs in their order, names repeated as they were sent.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (Cow<'q, str>, Cow<'q, str>)> + use<'q> {
        form_urlencoded::parse(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::Query;

    #[test]
    fn the_first_pair_of_a_name_wins() {
        let query = Query("EIO=4&transport=polling&t=abc&EIO=3");
        assert_eq!(query.get("EIO").as_deref(), Some("4"));
        assert_eq!(query.get("transport").as_deref(), Some("polling"));
        assert_eq!(query.get("sid"), None);
        assert_eq!(query.pairs().count(), 4);
    }

    #[test]
    fn plain_values_are_borrowed() {
        assert!(matches!(Query("a=plain").get("a"), Some(Cow::Borrowed("plain"))));
        assert!(matches!(Query("a=x%20y").get("a"), Some(Cow::Owned(_))));
    }

    #[test]
    fn oddities_are_values() {
        let cases = [
            ("", None),
            ("a", Some("")),
            ("a=", Some("")),
            ("a=b=c", Some("b=c")),
            ("&&a=1", Some("1")),
            ("%61=1", Some("1")),
            ("a=x+y%2Bz", Some("x y+z")),
            ("a=%", Some("%")),
            ("a=%zz", Some("%zz")),
            ("a=%ff", Some("\u{fffd}")),
        ];
        for (query, expected) in cases {
            assert_eq!(Query(query).get("a").as_deref(), expected, "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read(query in "\\PC*", name in "\\PC*") {
            let query = Query(&query);
            let found = query.get(&name);
            let first = query.pairs().find(|(key, _)| *key == name).map(|(_, value)| value);
            prop_assert_eq!(found, first);
        }

        #[test]
        fn what_was_encoded_is_read_back(pairs in prop::collection::vec((".*", ".*"), 0..5)) {
            let text = {
                let mut text = form_urlencoded::Serializer::new(String::new());
                text.extend_pairs(&pairs).finish()
            };
            let read: Vec<_> =
                Query(&text).pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(read, pairs);
        }
    }
}
