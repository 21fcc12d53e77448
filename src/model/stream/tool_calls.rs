//! Tool calls that come in deltas, in any of the ways in use.
//!
//! By the book each delta names its call by `index`, the first one brings `id` and `name`, and
//! `arguments` are put together. Servers leave out the index, send index 0 for all calls, say id and
//! name again with each delta, give a call a new id with each delta, or send the arguments as an object.

use serde_json::value::RawValue;

use super::super::lenient::{Fields, count, is_object};
use super::message::{inside, push_key};

#[derive(Default)]
pub(super) struct ToolCalls {
    calls: Vec<Call>,
}

/// A call under way.
#[derive(Default)]
struct Call {
    index: Option<u64>,
    /// The insides of JSON strings.
    id: String,
    name: String,
    arguments: String,
    /// Arguments that came as a JSON value of another kind.
    whole: Option<Box<RawValue>>,
    /// Other fields of the call and of its function: the last that was said counts.
    more: Vec<(String, Box<RawValue>)>,
    more_of_function: Vec<(String, Box<RawValue>)>,
}

/// What a delta says of a call.
#[derive(Default)]
struct Delta<'a> {
    index: Option<u64>,
    id: &'a str,
    name: &'a str,
    arguments: Option<&'a RawValue>,
    more: Vec<(String, &'a RawValue)>,
    more_of_function: Vec<(String, &'a RawValue)>,
}

impl ToolCalls {
    /// Takes the deltas of one chunk in.
    pub(super) fn add(&mut self, deltas: &[&RawValue]) {
        for (position, delta) in deltas.iter().enumerate() {
            let delta = Delta::read(delta);
            // Several in one chunk, without a word which they are: each is a call of its own.
            let nameless = delta.index.is_none() && delta.id.is_empty();
            let is_next = nameless && position > 0 && !delta.name.is_empty();
            if let Some(call) = self.find(&delta).filter(|_| !is_next) {
                call.add(&delta);
                continue;
            }
            let mut call = Call::default();
            call.add(&delta);
            self.calls.push(call);
        }
    }

    /// The call that a delta goes on with; none if it begins one.
    fn find(&mut self, delta: &Delta<'_>) -> Option<&mut Call> {
        let last = self.calls.len().checked_sub(1);
        let at = match delta.index {
            // The newest, if a server gives all of them the same.
            Some(index) => self
                .calls
                .iter()
                .rposition(|call| call.index == Some(index)),
            None if delta.id.is_empty() => last,
            None => {
                let same = self.calls.iter().rposition(|call| call.id == delta.id);
                same.or(last)
            }
        };
        let call = self.calls.get_mut(at?);
        call.filter(|call| !call.ends_before(delta))
    }

    /// The JSON array; none if there is no call.
    pub(super) fn into_json(mut self) -> Option<String> {
        if self.calls.is_empty() {
            return None;
        }
        // Those of a book-keeping server are in order already; of others the order of coming counts.
        if self.calls.iter().all(|call| call.index.is_some()) {
            self.calls.sort_by_key(|call| call.index);
        }
        let mut out = String::from("[");
        for (at, call) in self.calls.into_iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            call.write(&mut out);
        }
        out.push(']');
        Some(out)
    }
}

impl<'a> Delta<'a> {
    fn read(json: &'a RawValue) -> Self {
        let mut delta = Self::default();
        for (key, json) in Fields::read(json).0 {
            match &*key {
                "index" if json.get() != "null" => delta.index = Some(count(Some(json))),
                "index" => {}
                "id" => delta.id = inside(json.get()),
                "function" => delta.read_function(json),
                _ if json.get() != "null" => delta.more.push((key.into_owned(), json)),
                _ => {}
            }
        }
        delta
    }

    /// Whether its arguments are a text that looks like the first of a call.
    fn begins_object(&self) -> bool {
        let json = self.arguments.map_or("", RawValue::get);
        json.starts_with('"') && inside(json).trim_start().starts_with('{')
    }

    fn read_function(&mut self, json: &'a RawValue) {
        for (key, json) in Fields::read(json).0 {
            match &*key {
                "name" => self.name = inside(json.get()),
                "arguments" => self.arguments = Some(json).filter(|json| json.get() != "null"),
                _ if json.get() != "null" => self.more_of_function.push((key.into_owned(), json)),
                _ => {}
            }
        }
    }
}

impl Call {
    /// Whether `delta`, though it has the place of this call, is about another one.
    fn ends_before(&self, delta: &Delta<'_>) -> bool {
        if delta.name.is_empty() {
            // Without a name it goes on, also where the server makes up a new id each time.
            return false;
        }
        if !delta.id.is_empty() && !self.id.is_empty() {
            let is_open = self.has_arguments() && !self.has_all_arguments();
            return delta.id != self.id && !is_open;
        }
        // A name again, with no id to tell: the same call, unless that has all it needs.
        let is_other = self.has_arguments() && delta.name != self.name;
        // Nothing goes on behind a whole object.
        let begins = delta.index.is_none() || (delta.begins_object() && !self.repeats(delta));
        is_other || (begins && self.has_all_arguments())
    }

    /// Whether the arguments are a whole JSON object.
    fn has_all_arguments(&self) -> bool {
        let text = serde_json::from_str::<String>(&format!("\"{}\"", self.arguments));
        self.whole.is_some() || text.is_ok_and(|text| is_object(&text))
    }

    /// Whether `delta` says all over again what is there: the last word of some servers is the whole call.
    fn repeats(&self, delta: &Delta<'_>) -> bool {
        delta
            .arguments
            .is_some_and(|json| inside(json.get()) == self.arguments)
    }

    fn has_arguments(&self) -> bool {
        !self.arguments.is_empty() || self.whole.is_some()
    }

    fn add(&mut self, delta: &Delta<'_>) {
        self.index = self.index.or(delta.index);
        if self.id.is_empty() {
            delta.id.clone_into(&mut self.id);
        }
        self.add_name(delta.name);
        // With its name, and whole again: it is said twice.
        let is_said = !delta.name.is_empty() && self.repeats(delta) && self.has_all_arguments();
        match delta.arguments {
            Some(_) if is_said => {}
            Some(json) if json.get().starts_with('"') => {
                self.arguments.push_str(inside(json.get()));
            }
            Some(json) => self.whole = Some(json.to_owned()),
            None => {}
        }
        put(&mut self.more, &delta.more);
        put(&mut self.more_of_function, &delta.more_of_function);
    }

    /// A name comes once; or with each delta, or growing, or in pieces.
    fn add_name(&mut self, name: &str) {
        if self.name.is_empty() || name.starts_with(&self.name) {
            if !name.is_empty() {
                name.clone_into(&mut self.name);
            }
        } else if !self.has_arguments() {
            self.name.push_str(name);
        }
    }

    fn write(self, out: &mut String) {
        out.push('{');
        if !self.id.is_empty() {
            push_key(out, "id");
            push_text(out, &self.id);
        }
        for (key, json) in self.more {
            push_key(out, &key);
            out.push_str(json.get());
        }
        push_key(out, "function");
        out.push('{');
        push_key(out, "name");
        push_text(out, &self.name);
        push_key(out, "arguments");
        match self.whole.filter(|_| self.arguments.is_empty()) {
            Some(json) => out.push_str(json.get()),
            None => push_text(out, &self.arguments),
        }
        for (key, json) in self.more_of_function {
            push_key(out, &key);
            out.push_str(json.get());
        }
        out.push_str("}}");
    }
}

fn push_text(out: &mut String, inside: &str) {
    out.push('"');
    out.push_str(inside);
    out.push('"');
}

fn put(kept: &mut Vec<(String, Box<RawValue>)>, more: &[(String, &RawValue)]) {
    for (key, json) in more {
        match kept.iter_mut().find(|(name, _)| name == key) {
            Some((_, kept)) => *kept = (*json).to_owned(),
            None => kept.push((key.clone(), (*json).to_owned())),
        }
    }
}
