//! JSON of which some is a provider's own text and some is ours.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::lenient::Fields;

/// A JSON value.
pub(super) enum Piece<'a> {
    /// The provider's text.
    Raw(&'a RawValue),
    /// A string of ours.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Piece<'a>>),
    /// An object.
    Object(Vec<(Cow<'a, str>, Piece<'a>)>),
}

impl Serialize for Piece<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Raw(json) => json.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(pieces) => {
                let mut list = serializer.serialize_seq(Some(pieces.len()))?;
                for piece in pieces {
                    list.serialize_element(piece)?;
                }
                list.end()
            }
            Self::Object(fields) => {
                let mut object = serializer.serialize_map(Some(fields.len()))?;
                for (key, piece) in fields {
                    object.serialize_entry(key, piece)?;
                }
                object.end()
            }
        }
    }
}

/// `fields` with the named ones replaced where they stand, added where they are missing, and left
/// out where there is nothing to put.
pub(super) fn replaced<'a, const N: usize>(
    fields: Fields<'a>,
    mut by: [(&'static str, Option<Piece<'a>>); N],
) -> Piece<'a> {
    let fields = last_of_each(fields);
    let mut pieces = Vec::with_capacity(fields.len() + N);
    for (key, json) in fields {
        match by.iter_mut().find(|(name, _)| *name == key) {
            Some((name, piece)) => {
                pieces.extend(piece.take().map(|piece| (Cow::Borrowed(*name), piece)));
            }
            None => pieces.push((key, Piece::Raw(json))),
        }
    }
    for (name, piece) in by {
        pieces.extend(piece.map(|piece| (Cow::Borrowed(name), piece)));
    }
    Piece::Object(pieces)
}

/// Of fields with the same key the last one.
fn last_of_each(fields: Fields<'_>) -> Vec<(Cow<'_, str>, &RawValue)> {
    let mut seen = HashSet::new();
    let mut kept: Vec<_> = (fields.0.into_iter().rev())
        .filter(|(key, _)| seen.insert(key.clone()))
        .collect();
    kept.reverse();
    kept
}
