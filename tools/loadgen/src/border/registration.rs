//! REGISTERs of the UEs, each repeated until it is answered, without socket and clock. They say which
//! security of media the UEs are capable of (TS 24.229 clause 5.1.1.2: Security-Client with `mediasec`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::signalling::message::{Message, Start};

/// All UEs.
pub(super) struct Registrations {
    ues: Vec<Ue>,
    local: SocketAddr,
    domain: String,
    run: u32,
    /// Begun, and over.
    begun: u32,
    over: u32,
}

struct Ue {
    outcome: Option<Result<(), String>>,
    next: Instant,
    interval: Duration,
    deadline: Instant,
}

/// REGISTERs under way at a time.
const UNDER_WAY_MAX: u32 = 64;
const T1: Duration = Duration::from_millis(500);
/// 64 times T1 (RFC 3261 section 17.1.2.2, timer F).
const TIMEOUT: Duration = Duration::from_secs(32);

impl Registrations {
    pub(super) fn new(count: u32, local: SocketAddr, domain: String, run: u32) -> Self {
        let now = Instant::now();
        let ue = || Ue { outcome: None, next: now, interval: T1, deadline: now };
        Self { ues: (0..count).map(|_| ue()).collect(), local, domain, run, begun: 0, over: 0 }
    }

    /// All have been answered, or have given up.
    pub(super) fn is_over(&self) -> bool {
        self.over as usize == self.ues.len()
    }

    /// How many are registered, of how many.
    pub(super) fn counts(&self) -> (u32, u32) {
        let registered = self.ues.iter().filter(|ue| ue.outcome == Some(Ok(()))).count();
        (registered as u32, self.ues.len() as u32)
    }

    /// Whether that UE is registered; in words why it is not.
    pub(super) fn outcome(&self, ue: u32) -> Result<(), String> {
        self.ues[ue as usize].outcome.clone().unwrap_or(Ok(()))
    }

    /// What is to be sent now.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        while (self.begun as usize) < self.ues.len() && self.begun - self.over < UNDER_WAY_MAX {
            let ue = &mut self.ues[self.begun as usize];
            (ue.next, ue.deadline) = (now, now + TIMEOUT);
            self.begun += 1;
        }
        for number in 0..self.begun {
            let ue = &mut self.ues[number as usize];
            if ue.outcome.is_some() || now < ue.next {
                continue;
            }
            if now >= ue.deadline {
                ue.outcome = Some(Err("REGISTER was not answered".to_owned()));
                self.over += 1;
                continue;
            }
            ue.next = now + ue.interval;
            ue.interval *= 2;
            requests.push(self.request(number));
        }
        requests
    }

    /// Whether a response is to one of these.
    pub(super) fn handle(&mut self, message: &Message<'_>) -> bool {
        let Start::Response(status) = message.start else { return false };
        let number = message.header("Call-ID", Some("i")).and_then(|call_id| {
            let (number, run) = call_id.strip_prefix("register-")?.split_once('-')?;
            let is_ours = run == format!("{:08x}@mrf-load", self.run);
            number.parse::<usize>().ok().filter(|_| is_ours)
        });
        let Some(ue) = number.and_then(|number| self.ues.get_mut(number)) else { return false };
        if status >= 200 && ue.outcome.is_none() {
            ue.outcome = Some(match status {
                200..=299 => Ok(()),
                _ => Err(format!("REGISTER was answered {status}")),
            });
            self.over += 1;
        }
        true
    }

    fn request(&self, number: u32) -> Vec<u8> {
        let Self { local, domain, run, .. } = self;
        let aor = format!("sip:ue-{number}@{domain}");
        format!(
            "REGISTER sip:{domain} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK{run:08x}.r.{number};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <{aor}>;tag={run:08x}.r.{number}\r\nTo: <{aor}>\r\n\
             Call-ID: register-{number}-{run:08x}@mrf-load\r\nCSeq: 1 REGISTER\r\n\
             Contact: <sip:ue-{number}@{local}>\r\nExpires: 600\r\n\
             Security-Client: msrp-tls;mediasec, bfcp-tls;mediasec, udptl-dtls;mediasec\r\n\
             Require: mediasec\r\nProxy-Require: mediasec\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &[u8], status: &str) -> String {
        let request = Message::parse(request).unwrap();
        let call_id = request.header("Call-ID", None).unwrap();
        format!("SIP/2.0 {status}\r\nCall-ID: {call_id}\r\nCSeq: 1 REGISTER\r\n\r\n")
    }

    #[test]
    fn is_over_when_everybody_was_answered_or_gave_up() {
        let local = "192.0.2.1:5060".parse().unwrap();
        let mut registrations = Registrations::new(3, local, "a".to_owned(), 7);
        let now = Instant::now();
        let requests = registrations.poll(now);
        assert_eq!(requests.len(), 3);
        for (request, status) in [(&requests[0], "200 OK"), (&requests[1], "403 Forbidden")] {
            let response = answer(request, status);
            assert!(registrations.handle(&Message::parse(response.as_bytes()).unwrap()));
        }
        assert!(!registrations.is_over());
        assert_eq!(registrations.poll(now + T1).len(), 1);
        assert!(registrations.poll(now + TIMEOUT).is_empty());
        assert!(registrations.is_over());
        let outcomes: Vec<_> = (0..3).map(|ue| registrations.outcome(ue).is_ok()).collect();
        assert_eq!(outcomes, [true, false, false]);
        let other = answer(&requests[0], "200 OK").replace("00000007", "00000008");
        assert!(!registrations.handle(&Message::parse(other.as_bytes()).unwrap()));
    }
}
