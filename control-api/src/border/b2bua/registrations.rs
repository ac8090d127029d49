//! Which UEs are registered through us: what the network calls them by, where they really are, and what was
//! agreed with them. Sans-IO.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use rsipstack::sip::Uri;
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::time::Instant;

use super::super::MediaSecurity;
use super::B2buaConfig;

/// One contact of a UE.
#[derive(Clone)]
pub(super) struct Registration {
    /// Address of record.
    pub(super) user: String,
    /// The URI of its Contact, as it wrote it.
    pub(super) contact: String,
    /// The same for requests to it.
    pub(super) uri: Uri,
    /// Where its REGISTER came from: behind a NAT it is reached there alone.
    pub(super) source: SocketAddr,
    pub(super) destination: SipAddr,
    pub(super) flow: SipConnection,
    pub(super) security: MediaSecurity,
    /// Its registered identities, the default one first (P-Associated-URI).
    pub(super) identities: Vec<String>,
    /// The route the network wants its requests to take (RFC 3608).
    pub(super) service_route: Vec<String>,
    pub(super) expires: Instant,
}

/// One contact as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationView {
    /// Address of record.
    pub user: String,
    /// Its Contact, as it wrote it.
    pub contact: String,
    /// Where its REGISTER came from.
    pub source: SocketAddr,
    /// What was agreed of media security.
    pub security: MediaSecurity,
    /// How long it lasts.
    pub expires: Duration,
}

fn is_datagram(connection: &SipConnection) -> bool {
    matches!(connection, SipConnection::Udp(_))
}

/// All of them, by the user part of the contact that the network knows.
pub(super) struct Registrations {
    by_name: HashMap<String, Registration>,
    /// Several users may speak from one socket; the last that has registered last.
    by_source: HashMap<SocketAddr, Vec<String>>,
    by_user: HashMap<String, Vec<String>>,
    max: usize,
    per_user_max: usize,
}

/// Why a contact is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoRoom {
    /// The node is full.
    Registrations,
    /// The user has too many.
    Contacts,
}

impl Registrations {
    pub(super) fn new(config: &B2buaConfig) -> Self {
        Self {
            by_name: HashMap::new(),
            by_source: HashMap::new(),
            by_user: HashMap::new(),
            max: config.registrations_max,
            per_user_max: config.contacts_per_user_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// So many of them as an operator sees them, in no particular order.
    pub(super) fn views(&self, now: Instant, max: usize) -> Vec<RegistrationView> {
        let view = |registration: &Registration| RegistrationView {
            user: registration.user.clone(),
            contact: registration.contact.clone(),
            source: registration.source,
            security: registration.security,
            expires: registration.expires.saturating_duration_since(now),
        };
        self.by_name.values().take(max).map(view).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Registration> {
        self.by_name.get(name)
    }

    /// Those who speak from there over a connection like that, the last that has registered first. Who has
    /// registered over a stream is known by its stream: anybody can write its address into a datagram, and
    /// have its port when it is closed.
    pub(super) fn by_source(
        &self,
        source: SocketAddr,
        connection: Option<&SipConnection>,
    ) -> impl Iterator<Item = &Registration> {
        let datagram = connection.is_none_or(is_datagram);
        let names = self.by_source.get(&source).into_iter().flatten().rev();
        let here = names.filter_map(|name| self.by_name.get(name));
        here.filter(move |it| {
            let closed = || it.flow.cancel_token().is_none_or(|token| token.is_cancelled());
            is_datagram(&it.flow) == datagram && (datagram || !closed())
        })
    }

    /// Whether there is room for these contacts, all together.
    pub(super) fn check<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        user: &str,
    ) -> Result<(), NoRoom> {
        let new = names.filter(|name| !self.by_name.contains_key(*name)).count();
        if new == 0 {
            return Ok(());
        }
        if self.by_name.len() + new > self.max {
            return Err(NoRoom::Registrations);
        }
        let of_user = self.by_user.get(user).map_or(0, Vec::len);
        if of_user + new > self.per_user_max { Err(NoRoom::Contacts) } else { Ok(()) }
    }

    /// Takes a contact that the network has registered, unless others were faster and there is no room left.
    pub(super) fn insert(
        &mut self,
        name: String,
        registration: Registration,
    ) -> Result<(), NoRoom> {
        self.check(std::iter::once(name.as_str()), &registration.user)?;
        let of_source = self.by_source.entry(registration.source).or_default();
        of_source.retain(|it| *it != name);
        of_source.push(name.clone());
        let of_user = self.by_user.entry(registration.user.clone()).or_default();
        if !of_user.contains(&name) {
            of_user.push(name.clone());
        }
        if let Some(before) = self.by_name.insert(name.clone(), registration) {
            self.forget_source(before.source, &name);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(registration) = self.by_name.remove(name) {
            self.forget_source(registration.source, name);
            if let Some(of_user) = self.by_user.get_mut(&registration.user) {
                of_user.retain(|it| it != name);
                if of_user.is_empty() {
                    self.by_user.remove(&registration.user);
                }
            }
        }
    }

    /// All contacts of a user.
    pub(super) fn remove_user(&mut self, user: &str) {
        for name in self.by_user.get(user).cloned().unwrap_or_default() {
            self.remove(&name);
        }
    }

    /// Forgets those whose time is over; how many.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let due = self.by_name.iter().filter(|(_, it)| it.expires <= now);
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.remove(name);
        }
        due.len()
    }

    fn forget_source(&mut self, source: SocketAddr, name: &str) {
        let still = self.by_name.get(name).is_some_and(|it| it.source == source);
        if !still && let Some(of_source) = self.by_source.get_mut(&source) {
            of_source.retain(|it| it != name);
            if of_source.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }
}
