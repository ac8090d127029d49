//! Where participants come from that calls bring: each is let in when its call was answered.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};

use mrfp_protocol::tls::{Fingerprint, Psk};

use super::Control;

/// The door of a run, on the side of the calls.
pub struct Lobby {
    pub(super) control: Arc<Control>,
    /// Of each thread: its links.
    pub(super) doors: Vec<(Range<u32>, mpsc::Sender<Arrival>)>,
}

/// What has become of the call of a link.
pub(super) struct Arrival {
    pub(super) link: u32,
    /// `None`: nobody comes.
    pub(super) invitation: Option<Box<Invitation>>,
}

/// What the other side of a call has said of a media stream.
#[derive(Debug)]
pub struct Invitation {
    /// Where to connect.
    pub address: SocketAddr,
    /// Identity and key, for TLS.
    pub psk: Option<(Vec<u8>, Psk)>,
    /// What is to be known by a certificate, for TLS.
    pub fingerprint: Option<Fingerprint>,
    /// What is said there.
    pub stream: Stream,
}

/// What a media stream is for.
#[derive(Debug)]
pub enum Stream {
    /// Floor control.
    Floors {
        /// `a=confid`.
        conference_id: u32,
        /// `a=userid`.
        user_id: u16,
        /// `a=floorid`, each.
        floor_ids: Vec<u16>,
    },
    /// Messages.
    Messages {
        /// `a=path` of the other side.
        to_path: String,
        /// Our own.
        from_path: String,
    },
    /// Fax.
    Fax,
}

impl Lobby {
    /// The participant with that number connects.
    pub fn admit(&self, link: u32, invitation: Invitation) {
        self.arrive(Arrival { link, invitation: Some(Box::new(invitation)) });
    }

    /// It will not come.
    pub fn dismiss(&self, link: u32) {
        self.arrive(Arrival { link, invitation: None });
    }

    /// Where the participant with that number is reached, where it listens.
    #[must_use]
    pub fn bound(&self, link: u32) -> Option<SocketAddr> {
        self.control.bound.lock().unwrap_or_else(PoisonError::into_inner).get(&link).copied()
    }

    /// All is said: the calls may end.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.control.served.load(Ordering::Acquire)
    }

    /// The calls have ended.
    pub fn close(&self) {
        self.control.calls_over.store(true, Ordering::Release);
    }

    fn arrive(&self, arrival: Arrival) {
        let door = self.doors.iter().find(|(links, _)| links.contains(&arrival.link));
        if let Some((_, door)) = door {
            // A thread that has ended has told so itself.
            let _ = door.send(arrival);
        }
    }
}
