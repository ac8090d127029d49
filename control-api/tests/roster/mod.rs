//! A subscriber to the conference event package: it reads documents and keeps the state of the
//! conference by the procedure of RFC 4575 section 4.6, and knows nothing else.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// An element: attributes, text, children.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: BTreeMap<String, String>,
    pub(crate) text: String,
    children: Vec<Self>,
}

/// The subscriber's view.
#[derive(Clone, Default, Debug)]
pub(crate) struct Roster {
    pub(crate) version: Option<u32>,
    document: Element,
}

/// What a conference is like, for comparing.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) user_count: usize,
    pub(crate) locked: bool,
    pub(crate) users: BTreeMap<String, UserView>,
}

/// One user of a [`View`].
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct UserView {
    pub(crate) nickname: Option<String>,
    /// Status, disconnection method and direction by endpoint.
    pub(crate) endpoints: BTreeMap<String, (String, Option<String>, Option<String>)>,
}

impl Element {
    fn new(start: &BytesStart<'_>) -> Self {
        let attributes = start.attributes().map(|attribute| {
            let attribute = attribute.expect("an attribute");
            let version = quick_xml::XmlVersion::Explicit1_0;
            let value = attribute.normalized_value(version).expect("a value").into_owned();
            (attribute.key.as_ref().to_owned(), value)
        });
        let attributes = attributes.collect();
        Self { name: start.name().as_ref().to_owned(), attributes, ..Self::default() }
    }

    /// Reads a document.
    pub(crate) fn parse(text: &str) -> Self {
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Start(start) => open.push(Self::new(&start)),
                Event::Empty(start) => {
                    let element = Self::new(&start);
                    open.last_mut().expect("a root").children.push(element);
                }
                Event::End(_) => {
                    let element = open.pop().expect("it was opened");
                    open.last_mut().expect("a root").children.push(element);
                }
                Event::Text(text) => {
                    open.last_mut().expect("a root").text.push_str(&text);
                }
                Event::GeneralRef(reference) => {
                    let character = quick_xml::escape::resolve_predefined_entity(&reference);
                    let character = character.expect("a predefined entity");
                    open.last_mut().expect("a root").text.push_str(character);
                }
                Event::Decl(_) => {}
                Event::Eof => break,
                other => panic!("{other:?} has no place in such a document"),
            }
        }
        assert_eq!(open.len(), 1);
        open.pop().expect("the root").children.pop().expect("a document")
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(crate) fn children(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Section 4.5: what tells siblings of the same name apart.
    fn key(&self) -> (&str, Option<&str>) {
        let key = match self.name.as_str() {
            "user" | "endpoint" => self.attribute("entity"),
            "media" => self.attribute("id"),
            _ => None,
        };
        (&self.name, key)
    }

    /// The `state` attribute; its default is `full`.
    pub(crate) fn state(&self) -> &str {
        self.attribute("state").unwrap_or("full")
    }

    /// Section 4.6, from step 1 on, for the children of an element whose state is partial.
    fn update(&mut self, update: &Self) {
        for new in &update.children {
            let known = self.children.iter().position(|child| child.key() == new.key());
            match (new.state(), known) {
                ("deleted", Some(at)) => {
                    self.children.remove(at);
                }
                // It came and went since the last document.
                ("deleted", None) => {}
                ("partial", Some(at)) => self.children[at].update(new),
                ("full" | "partial", None) => self.children.push(new.clone()),
                ("full", Some(at)) => self.children[at] = new.clone(),
                (other, _) => panic!("state {other:?}"),
            }
        }
        // Attributes of an element are replaced with it.
        self.attributes.extend(update.attributes.clone());
    }
}

impl Roster {
    /// Takes a document in; it must be the next one. False where the conference is over.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let document = Element::parse(text);
        assert_eq!(document.name, "conference-info");
        assert_eq!(
            document.attribute("xmlns"),
            Some("urn:ietf:params:xml:ns:conference-info"),
            "{text}"
        );
        let version: u32 = document.attribute("version").expect("a version").parse().unwrap();
        // Section 5.2: "For each partial notification, the version number MUST be increased by one".
        assert_eq!(version, self.version.map_or(0, |version| version + 1), "{text}");
        self.version = Some(version);
        match document.state() {
            "full" => {
                assert!(document.child("conference-description").is_some(), "{text}");
                assert!(document.child("users").is_some(), "{text}");
                self.document = document;
                true
            }
            "partial" => {
                self.document.update(&document);
                true
            }
            "deleted" => false,
            other => panic!("state {other:?}"),
        }
    }

    /// The whole state, whatever documents it came in.
    pub(crate) fn document(&self) -> &Element {
        &self.document
    }

    pub(crate) fn view(&self) -> View {
        let summary = self.document.child("conference-state").expect("conference-state");
        let text = |element: &Element, name: &str| element.child(name).map(|c| c.text.clone());
        let users = self.document.child("users").expect("users");
        let users = users.children("user").map(|user| {
            let endpoints = user.children("endpoint").map(|endpoint| {
                let media = endpoint.child("media");
                let facts = (
                    text(endpoint, "status").expect("status"),
                    text(endpoint, "disconnection-method"),
                    media.and_then(|media| text(media, "status")),
                );
                (endpoint.attribute("entity").expect("entity").to_owned(), facts)
            });
            let view = UserView {
                nickname: user.attribute("xcon:nickname").map(str::to_owned),
                endpoints: endpoints.collect(),
            };
            (user.attribute("entity").expect("entity").to_owned(), view)
        });
        View {
            user_count: text(summary, "user-count").expect("user-count").parse().unwrap(),
            locked: text(summary, "locked").expect("locked") == "true",
            users: users.collect(),
        }
    }
}
