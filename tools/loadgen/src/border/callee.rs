//! Who is called, and the registrar beside it: answers whatever begins at the other end, without socket and
//! clock. A call is answered at once or refused; the 200 is repeated until its ACK (RFC 3261 section 13.3.1.4).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::endpoint::Reply;
use crate::signalling::message::{Message, Start, response, uri_of};

/// Everybody who is called on one side.
pub(super) struct Callees {
    /// Our host and port, for Contact.
    local: String,
    /// Makes our tags unlike those of another run.
    run: u32,
    dialogs: HashMap<String, Dialog>,
    /// Contacts by the user part of who has registered.
    contacts: HashMap<String, String>,
    transmit: Vec<(Vec<u8>, Reply)>,
    events: Vec<Event>,
}

struct Dialog {
    call: u32,
    /// The 200, and its way.
    answer: Vec<u8>,
    reply: Reply,
    sdp: Vec<u8>,
    stage: Stage,
    /// When the 200 is repeated, and the time until then.
    next: Instant,
    interval: Duration,
    deadline: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Answered,
    Confirmed,
    Over,
}

/// What has become of a call.
#[derive(Debug)]
pub(super) enum Event {
    /// The caller has hung up.
    Ended { call: u32, reason: String },
    /// The 200 was never acknowledged.
    Unacknowledged { call: u32 },
}

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64 times T1.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(32);
/// What a registrar grants where nothing is asked for, in seconds.
const EXPIRES: &str = "600";

impl Callees {
    pub(super) fn new(local: String, run: u32) -> Self {
        Self {
            local,
            run,
            dialogs: HashMap::new(),
            contacts: HashMap::new(),
            transmit: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The contact under which somebody has registered, by the user part of its identity.
    pub(super) fn contact(&self, user: &str) -> Option<&str> {
        self.contacts.get(user).map(String::as_str)
    }

    /// Handles a request that belongs to no call of our own. `answer` makes the SDP answer for a call, or
    /// says why there is none.
    pub(super) fn handle(
        &mut self,
        message: &Message<'_>,
        reply: &Reply,
        now: Instant,
        answer: impl FnOnce(u32, &[u8]) -> Result<Vec<u8>, String>,
    ) {
        let Start::Request(method) = message.start else { return };
        match method {
            "INVITE" if message.to_tag().is_none() => self.invited(message, reply, now, answer),
            "ACK" => {
                if let Some(dialog) = self.dialog(message)
                    && dialog.stage == Stage::Answered
                {
                    dialog.stage = Stage::Confirmed;
                }
            }
            "REGISTER" => self.register(message, reply),
            "OPTIONS" => self.respond(message, "200 OK", reply),
            "BYE" | "INVITE" | "UPDATE" | "INFO" | "MESSAGE" => {
                self.within_dialog(method, message, reply);
            }
            // Who has answered cannot be cancelled any more.
            "CANCEL" => {
                let known = self.dialog(message).is_some();
                self.respond(message, if known { "200 OK" } else { GONE }, reply);
            }
            _ => self.respond(message, "501 Not Implemented", reply),
        }
    }

    fn invited(
        &mut self,
        message: &Message<'_>,
        reply: &Reply,
        now: Instant,
        answer: impl FnOnce(u32, &[u8]) -> Result<Vec<u8>, String>,
    ) {
        if let Some(Dialog { answer, .. }) = self.dialog(message) {
            let answer = answer.clone();
            self.transmit.push((answer, reply.clone()));
            return;
        }
        let (Some(call), Some(call_id)) = (called(message), message.header("Call-ID", Some("i")))
        else {
            return self.respond(message, "404 Not Found", reply);
        };
        let sdp = match answer(call, message.body) {
            Ok(sdp) => sdp,
            Err(why) => {
                let status = format!("488 Not Acceptable Here\r\nWarning: 399 mrf-load \"{why}\"");
                return self.respond(message, &status, reply);
            }
        };
        let tag = format!("{:08x}.{call}", self.run);
        let contact = format!("<sip:ue-{call}@{}>", self.local);
        let answer = response(message, "200 OK", Some(&tag), Some(&contact), &sdp);
        let dialog = Dialog {
            call,
            answer: answer.clone(),
            reply: reply.clone(),
            sdp,
            stage: Stage::Answered,
            next: now + T1,
            interval: T1,
            deadline: now + ANSWER_TIMEOUT,
        };
        self.dialogs.insert(call_id.to_owned(), dialog);
        self.transmit.push((answer, reply.clone()));
    }

    fn within_dialog(&mut self, method: &str, message: &Message<'_>, reply: &Reply) {
        let local = self.local.clone();
        let Some(dialog) = self.dialog(message) else { return self.respond(message, GONE, reply) };
        let call = dialog.call;
        let mut body = Vec::new();
        let mut event = None;
        match method {
            "BYE" if dialog.stage != Stage::Over => {
                dialog.stage = Stage::Over;
                let reason = message.header("Reason", None).unwrap_or("").to_owned();
                event = Some(Event::Ended { call, reason });
            }
            // The session goes on as it is.
            "INVITE" => body.clone_from(&dialog.sdp),
            "UPDATE" if !message.body.is_empty() => body.clone_from(&dialog.sdp),
            _ => {}
        }
        let contact = format!("<sip:ue-{call}@{local}>");
        let answer = response(message, "200 OK", None, Some(&contact), &body);
        self.transmit.push((answer, reply.clone()));
        self.events.extend(event);
    }

    /// As a registrar that asks nobody who he is.
    fn register(&mut self, message: &Message<'_>, reply: &Reply) {
        let to = message.header("To", Some("t")).map_or("", uri_of);
        let (Some(user), Some(contact)) = (user_of(to), message.header("Contact", Some("m")))
        else {
            return self.respond(message, "400 Bad Request", reply);
        };
        self.contacts.insert(user.to_owned(), uri_of(contact).to_owned());
        let expires = message.header("Expires", None).unwrap_or(EXPIRES);
        let contact = format!("<{}>;expires={expires}", uri_of(contact));
        let answer = response(message, "200 OK", Some("registrar"), Some(&contact), &[]);
        self.transmit.push((answer, reply.clone()));
    }

    /// Repeats what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for dialog in self.dialogs.values_mut() {
            if dialog.stage != Stage::Answered || now < dialog.next {
                continue;
            }
            if now >= dialog.deadline {
                dialog.stage = Stage::Over;
                self.events.push(Event::Unacknowledged { call: dialog.call });
                continue;
            }
            dialog.interval = T2.min(2 * dialog.interval);
            dialog.next = now + dialog.interval;
            self.transmit.push((dialog.answer.clone(), dialog.reply.clone()));
        }
    }

    /// What is to be sent.
    pub(super) fn take_transmit(&mut self) -> Vec<(Vec<u8>, Reply)> {
        std::mem::take(&mut self.transmit)
    }

    /// What has happened.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn dialog(&mut self, message: &Message<'_>) -> Option<&mut Dialog> {
        self.dialogs.get_mut(message.header("Call-ID", Some("i"))?)
    }

    fn respond(&mut self, message: &Message<'_>, status: &str, reply: &Reply) {
        let tag = format!("{:08x}", self.run);
        let answer = response(message, status, Some(&tag), None, &[]);
        self.transmit.push((answer, reply.clone()));
    }
}

const GONE: &str = "481 Call/Transaction Does Not Exist";

/// Whom a URI names.
pub(super) fn user_of(uri: &str) -> Option<&str> {
    let rest = uri.split_once(':')?.1;
    rest.split_once('@').map(|(user, _)| user)
}

/// The number of the call: what the user part ends with, of the Request-URI or else of To.
fn called(message: &Message<'_>) -> Option<u32> {
    let number = |uri: &str| user_of(uri)?.rsplit_once('-')?.1.parse().ok();
    let to = message.header("To", Some("t")).map(uri_of);
    message.request_uri().and_then(number).or_else(|| to.and_then(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Reply {
        Reply::Datagram("192.0.2.1:5060".parse().unwrap())
    }

    fn request(method: &str, tag: &str, extra: &str) -> Vec<u8> {
        format!(
            "{method} sip:chat-7@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK{method}\r\n\
             From: <sip:a@a>;tag=1\r\nTo: <sip:chat-7@b>{tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\
             {extra}Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    fn handle(callees: &mut Callees, bytes: &[u8], now: Instant) -> Vec<String> {
        let message = Message::parse(bytes).unwrap();
        callees.handle(&message, &reply(), now, |call, _| match call {
            7 => Ok(b"v=0\r\n".to_vec()),
            _ => Err("nobody".to_owned()),
        });
        let said = callees.take_transmit().into_iter();
        said.map(|(answer, _)| String::from_utf8(answer).unwrap()).collect()
    }

    #[test]
    fn a_call_is_answered_until_it_is_acknowledged_and_ends_once() {
        let (mut callees, now) = (Callees::new("192.0.2.2:5060".to_owned(), 1), Instant::now());
        let answers = handle(&mut callees, &request("INVITE", "", ""), now);
        assert!(answers[0].starts_with("SIP/2.0 200 OK\r\n"), "{answers:?}");
        assert!(answers[0].contains("To: <sip:chat-7@b>;tag=00000001.7\r\n"), "{answers:?}");
        assert!(answers[0].contains("Contact: <sip:ue-7@192.0.2.2:5060>\r\n"));
        // A repetition is answered alike, and the answer is repeated.
        assert_eq!(handle(&mut callees, &request("INVITE", "", ""), now), answers);
        callees.handle_timeout(now + T1);
        assert_eq!(callees.take_transmit().len(), 1);
        assert!(handle(&mut callees, &request("ACK", ";tag=2", ""), now).is_empty());
        callees.handle_timeout(now + 3 * T1);
        assert!(callees.take_transmit().is_empty());
        let bye = request("BYE", ";tag=2", "Reason: Q.850;cause=16\r\n");
        for _ in 0..2 {
            assert!(handle(&mut callees, &bye, now)[0].starts_with("SIP/2.0 200"));
        }
        let events = callees.take_events();
        assert!(
            matches!(&events[..], [Event::Ended { call: 7, reason }] if reason.contains("16")),
            "{events:?}"
        );
    }

    #[test]
    fn an_answer_that_nobody_acknowledges_is_given_up() {
        let (mut callees, now) = (Callees::new("192.0.2.2:5060".to_owned(), 1), Instant::now());
        handle(&mut callees, &request("INVITE", "", ""), now);
        callees.handle_timeout(now + ANSWER_TIMEOUT);
        assert!(matches!(callees.take_events()[..], [Event::Unacknowledged { call: 7 }]));
        callees.handle_timeout(now + 2 * ANSWER_TIMEOUT);
        assert!(callees.take_transmit().is_empty() && callees.take_events().is_empty());
    }

    #[test]
    fn who_registers_is_known_by_its_contact() {
        let mut callees = Callees::new("192.0.2.2:5060".to_owned(), 1);
        let contact = "Contact: <sip:x1@192.0.2.9:5062;ob>\r\nExpires: 60\r\n";
        let answers = handle(&mut callees, &request("REGISTER", "", contact), Instant::now());
        assert!(answers[0].contains("Contact: <sip:x1@192.0.2.9:5062;ob>;expires=60\r\n"));
        assert_eq!(callees.contact("chat-7"), Some("sip:x1@192.0.2.9:5062;ob"));
    }

    #[test]
    fn what_belongs_to_no_call_is_told_so() {
        let mut callees = Callees::new("192.0.2.2:5060".to_owned(), 1);
        for (method, status) in
            [("BYE", "481"), ("CANCEL", "481"), ("OPTIONS", "200"), ("PUBLISH", "501")]
        {
            let answers = handle(&mut callees, &request(method, "", ""), Instant::now());
            assert!(answers[0].starts_with(&format!("SIP/2.0 {status}")), "{answers:?}");
        }
    }
}
