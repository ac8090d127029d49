//! The SIP side of the fleet: thousands of calls over one socket.
//!
//! [`UserAgents`] is the machine of all calls, without socket and clock: messages and times in,
//! messages and events out. [`transport`] moves them.

mod call;
pub mod message;
pub mod sdp;
pub mod transport;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use self::call::{Call, State, TRANSACTION_TIMEOUT, contact};
use self::message::{Message, Start, response, uri_of};

/// All calls of the fleet. Call numbers are session numbers.
#[derive(Debug)]
pub struct UserAgents {
    config: Config,
    /// What follows the call number in our Call-IDs.
    call_id_end: String,
    calls: Vec<Call>,
    timers: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    transmit: VecDeque<(u32, Vec<u8>)>,
    events: VecDeque<Event>,
}

/// What all calls have in common.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our hosts and ports, for Via and Contact, dealt out to the calls in turn.
    pub local_addresses: Vec<String>,
    /// `UDP` or `TCP`, as in Via.
    pub transport: &'static str,
    /// Makes Call-IDs, tags and branches of this run unlike those of another.
    pub run: u32,
    /// Retransmission is ours to do (UDP).
    pub unreliable: bool,
}

impl Config {
    fn place(&self, call: u32) -> u32 {
        place_of(call, self.local_addresses.len()).unwrap_or(0) as u32
    }

    fn local_address(&self, call: u32) -> &str {
        &self.local_addresses[self.place(call) as usize]
    }
}

/// Which of so many a call has, where they are dealt out in turn; `None`: there are none.
#[must_use]
pub fn place_of(call: u32, count: usize) -> Option<usize> {
    (call as usize).checked_rem(count)
}

/// What has become of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// 2xx; the ACK is on its way.
    Answered {
        /// Call.
        call: u32,
        /// The SDP answer.
        sdp: Vec<u8>,
    },
    /// A final answer other than 2xx, to a call that had not been cancelled.
    Refused {
        /// Call.
        call: u32,
        /// Status.
        status: u16,
        /// Warning header, where there was one.
        warning: String,
        /// 503 with Retry-After: the node is there, and has no room or no time for this call.
        shed: bool,
    },
    /// No final answer in time.
    Unanswered {
        /// Call.
        call: u32,
    },
    /// The node hung up (and was answered).
    HungUp {
        /// Call.
        call: u32,
        /// Reason header, where there was one.
        reason: String,
    },
    /// Our BYE was answered; or a cancelled call has ended.
    Ended {
        /// Call.
        call: u32,
        /// Status of the answer to the BYE; 487 after a CANCEL.
        status: u16,
    },
    /// Our BYE was not answered in time.
    EndUnanswered {
        /// Call.
        call: u32,
    },
}

/// RFC 3261 section 17.1.2.2: longest interval between retransmissions of a BYE.
const T2: Duration = Duration::from_secs(4);
/// A call that rings that long is given up with CANCEL.
const PROCEEDING_TIMEOUT: Duration = Duration::from_secs(60);

impl UserAgents {
    /// `count` calls that have not begun.
    #[must_use]
    pub fn new(config: Config, count: u32, now: Instant) -> Self {
        let calls = (0..count).map(|_| Call::new(now)).collect();
        Self {
            call_id_end: format!("{:08x}@mrf-load", config.run),
            config,
            calls,
            timers: BinaryHeap::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// One more call; its number follows the last one's.
    pub fn add(&mut self, now: Instant) {
        self.calls.push(Call::new(now));
    }

    /// Sends the INVITE of a call that has not begun.
    pub fn invite(&mut self, call: u32, invite: Invite, now: Instant) {
        let config = &self.config;
        let this = &mut self.calls[call as usize];
        assert_eq!(this.state, State::Idle);
        this.from = invite.from;
        this.remote = format!("<{}>", invite.to);
        this.request_uri = invite.to;
        this.sdp = invite.sdp;
        this.state = State::Calling;
        let mut request = this.head(config, call, "INVITE", 1);
        let _ = write!(
            request,
            "Contact: {}\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
            contact(config, call),
            this.sdp.len(),
        );
        this.request = request.into_bytes();
        this.request.extend_from_slice(&this.sdp);
        this.begin_transaction(config, now);
        self.transmit.push_back((config.place(call), this.request.clone()));
        self.set_timer(call);
    }

    /// Ends a call: BYE where it is up, CANCEL where it is not answered yet. One [`Event::Ended`]
    /// or [`Event::EndUnanswered`] follows, at once where there is no call.
    pub fn end(&mut self, call: u32, now: Instant) {
        let this = &mut self.calls[call as usize];
        match this.state {
            State::Idle | State::Over => {
                this.state = State::Over;
                self.events.push_back(Event::Ended { call, status: 200 });
            }
            State::Calling | State::Proceeding => {
                this.cancelled = true;
                if this.state == State::Proceeding {
                    self.cancel(call, now);
                }
            }
            State::Up => self.bye(call, now),
            State::Ending => {}
        }
    }

    /// Nobody is there to answer: every open transaction ends now, as if its time were up.
    pub fn abandon(&mut self) {
        for (call, this) in (0..).zip(&mut self.calls) {
            let event = match this.state {
                State::Calling | State::Proceeding if !this.cancelled => Event::Unanswered { call },
                State::Calling | State::Proceeding | State::Ending => Event::EndUnanswered { call },
                State::Idle | State::Up | State::Over => continue,
            };
            this.over();
            self.events.push_back(event);
        }
    }

    /// A message arrived at one of our addresses.
    pub fn handle_message(&mut self, place: u32, bytes: &[u8], now: Instant) {
        let Some(message) = Message::parse(bytes) else {
            return;
        };
        let Some(call) = self.call_of(&message) else {
            if let Start::Request(method) = message.start
                && method != "ACK"
            {
                let status = if method == "OPTIONS" {
                    "200 OK"
                } else {
                    "481 Call/Transaction Does Not Exist"
                };
                self.respond(place, &message, status, None);
            }
            return;
        };
        match message.start {
            Start::Request(method) => self.request(place, call, method, &message),
            Start::Response(status) => self.response(call, status, &message, now),
        }
    }

    /// Whether a message belongs to one of these calls.
    #[must_use]
    pub fn knows(&self, message: &Message<'_>) -> bool {
        self.call_of(message).is_some()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((due, call, timer))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            if self.calls[call as usize].timer == timer {
                self.timer_fired(call, now);
            }
        }
    }

    /// When [`UserAgents::handle_timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _, _))| *due)
    }

    /// The next message to send, and from which of our addresses.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(u32, Vec<u8>)> {
        self.transmit.pop_front()
    }

    /// The next thing that has happened.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn call_of(&self, message: &Message<'_>) -> Option<u32> {
        let call_id = message.header("Call-ID", Some("i"))?;
        let (number, run) = call_id.split_once('-')?;
        let number: u32 = number.parse().ok()?;
        let begun = self.calls.get(number as usize)?.state != State::Idle;
        (begun && run == self.call_id_end).then_some(number)
    }

    fn response(&mut self, call: u32, status: u16, message: &Message<'_>, now: Instant) {
        let Some((cseq, method)) =
            message.header("CSeq", None).and_then(|cseq| cseq.split_once(' '))
        else {
            return;
        };
        let this = &self.calls[call as usize];
        if cseq.parse() != Ok(this.cseq) && method != "INVITE" {
            return;
        }
        match (method.trim(), status) {
            ("INVITE", 100..=199) => self.provisional(call, now),
            ("INVITE", 200..=299) => self.accepted(call, message, now),
            ("INVITE", 300..=699) => self.refused(call, status, message),
            ("BYE", 200..=699) if this.state == State::Ending => {
                self.calls[call as usize].over();
                self.events.push_back(Event::Ended { call, status });
            }
            _ => {}
        }
    }

    fn provisional(&mut self, call: u32, now: Instant) {
        let this = &mut self.calls[call as usize];
        if this.state != State::Calling {
            return;
        }
        this.state = State::Proceeding;
        this.deadline = now + PROCEEDING_TIMEOUT;
        if this.cancelled {
            self.cancel(call, now);
        } else {
            self.set_timer(call);
        }
    }

    fn accepted(&mut self, call: u32, message: &Message<'_>, now: Instant) {
        let config = &self.config;
        let this = &mut self.calls[call as usize];
        match this.state {
            State::Calling | State::Proceeding => {}
            State::Idle => return,
            // Our ACK was lost; a 2xx after the end of the transaction is treated alike.
            State::Up | State::Ending | State::Over => {
                if !this.ack.is_empty() {
                    self.transmit.push_back((config.place(call), this.ack.clone()));
                }
                return;
            }
        }
        if let Some(to) = message.header("To", Some("t")) {
            this.remote = to.to_owned();
        }
        if let Some(contact) = message.header("Contact", Some("m")) {
            uri_of(contact).clone_into(&mut this.request_uri);
        }
        // RFC 3261 section 12.1.2: the route set in reverse order.
        this.routes = message
            .header_values("Record-Route", None)
            .flat_map(|value| value.split(','))
            .map(|route| route.trim().to_owned())
            .collect();
        this.routes.reverse();
        let mut ack = this.head(config, call, "ACK", 2);
        ack.push_str("Content-Length: 0\r\n\r\n");
        this.ack = ack.into_bytes();
        this.request = Vec::new();
        this.state = State::Up;
        this.timer += 1;
        self.transmit.push_back((config.place(call), this.ack.clone()));
        if this.cancelled {
            // The 2xx crossed our CANCEL (RFC 3261 section 15).
            self.bye(call, now);
        } else {
            let sdp = message.body.to_vec();
            self.events.push_back(Event::Answered { call, sdp });
        }
    }

    fn refused(&mut self, call: u32, status: u16, message: &Message<'_>) {
        let config = &self.config;
        let this = &mut self.calls[call as usize];
        if let Some(to) = message.header("To", Some("t")) {
            this.remote = to.to_owned();
        }
        // RFC 3261 section 17.1.1.3: same branch as the INVITE; also for retransmissions.
        if matches!(this.state, State::Calling | State::Proceeding | State::Over) {
            let mut ack = this.head(config, call, "ACK", 1);
            ack.push_str("Content-Length: 0\r\n\r\n");
            self.transmit.push_back((config.place(call), ack.into_bytes()));
        }
        if !matches!(this.state, State::Calling | State::Proceeding) {
            return;
        }
        let cancelled = this.cancelled;
        this.over();
        self.events.push_back(if cancelled {
            Event::Ended { call, status }
        } else {
            let warning = message.header("Warning", None).unwrap_or("").to_owned();
            let shed = status == 503 && message.header("Retry-After", None).is_some();
            Event::Refused { call, status, warning, shed }
        });
    }

    fn request(&mut self, place: u32, call: u32, method: &str, message: &Message<'_>) {
        match method {
            "ACK" => {}
            "BYE" => {
                self.respond(place, message, "200 OK", None);
                let this = &mut self.calls[call as usize];
                match this.state {
                    State::Up => {
                        this.over();
                        let reason = message.header("Reason", None).unwrap_or("").to_owned();
                        self.events.push_back(Event::HungUp { call, reason });
                    }
                    // Both hang up at once: each BYE is answered on its own.
                    State::Idle
                    | State::Calling
                    | State::Proceeding
                    | State::Ending
                    | State::Over => {}
                }
            }
            "INVITE" | "UPDATE" => self.reoffer(place, call, message),
            "OPTIONS" | "INFO" | "MESSAGE" => self.respond(place, message, "200 OK", None),
            _ => self.respond(place, message, "501 Not Implemented", None),
        }
    }

    /// A new offer in the dialog: the session goes on as it is.
    fn reoffer(&mut self, place: u32, call: u32, message: &Message<'_>) {
        let this = &self.calls[call as usize];
        if this.state != State::Up {
            return self.respond(place, message, "481 Call/Transaction Does Not Exist", None);
        }
        let answers = !message.body.is_empty() || message.start == Start::Request("INVITE");
        let sdp = answers.then(|| this.sdp.clone());
        self.respond(place, message, "200 OK", Some((call, sdp)));
    }

    fn respond(
        &mut self,
        place: u32,
        message: &Message<'_>,
        status: &str,
        session: Option<(u32, Option<Vec<u8>>)>,
    ) {
        let contact = session.as_ref().map(|(call, _)| contact(&self.config, *call));
        let body = session.and_then(|(_, sdp)| sdp).unwrap_or_default();
        let response = response(message, status, None, contact.as_deref(), &body);
        self.transmit.push_back((place, response));
    }

    fn bye(&mut self, call: u32, now: Instant) {
        let config = &self.config;
        let this = &mut self.calls[call as usize];
        this.cseq += 1;
        this.state = State::Ending;
        let mut request = this.head(config, call, "BYE", 3);
        request.push_str("Content-Length: 0\r\n\r\n");
        this.request = request.into_bytes();
        this.begin_transaction(config, now);
        self.transmit.push_back((config.place(call), this.request.clone()));
        self.set_timer(call);
    }

    fn cancel(&mut self, call: u32, now: Instant) {
        let config = &self.config;
        let this = &mut self.calls[call as usize];
        // RFC 3261 section 9.1: branch and CSeq number of the INVITE.
        let mut request = this.head(config, call, "CANCEL", 1);
        request.push_str("Content-Length: 0\r\n\r\n");
        self.transmit.push_back((config.place(call), request.into_bytes()));
        this.deadline = now + TRANSACTION_TIMEOUT;
        self.set_timer(call);
    }

    fn timer_fired(&mut self, call: u32, now: Instant) {
        let config = &self.config;
        let this = &mut self.calls[call as usize];
        if now < this.deadline {
            match this.state {
                State::Calling => this.interval *= 2,
                State::Ending => this.interval = T2.min(this.interval * 2),
                State::Idle | State::Proceeding | State::Up | State::Over => return,
            }
            this.next = now + this.interval;
            if config.unreliable {
                self.transmit.push_back((config.place(call), this.request.clone()));
            }
            return self.set_timer(call);
        }
        match this.state {
            State::Proceeding if !this.cancelled => {
                this.cancelled = true;
                self.events.push_back(Event::Unanswered { call });
                self.cancel(call, now);
            }
            State::Calling | State::Proceeding => {
                let cancelled = this.cancelled;
                this.over();
                self.events.push_back(if cancelled {
                    Event::EndUnanswered { call }
                } else {
                    Event::Unanswered { call }
                });
            }
            State::Ending => {
                this.over();
                self.events.push_back(Event::EndUnanswered { call });
            }
            State::Idle | State::Up | State::Over => {}
        }
    }

    fn set_timer(&mut self, call: u32) {
        let this = &mut self.calls[call as usize];
        this.timer += 1;
        let due = match this.state {
            State::Calling | State::Ending => this.next.min(this.deadline),
            State::Idle | State::Proceeding | State::Up | State::Over => this.deadline,
        };
        self.timers.push(Reverse((due, call, this.timer)));
    }
}

/// What an INVITE says.
#[derive(Clone, Debug)]
pub struct Invite {
    /// URI of the UE.
    pub from: String,
    /// URI of the room, also the Request-URI.
    pub to: String,
    /// The offer.
    pub sdp: Vec<u8>,
}
