//! Offers and answers: what the shards are told of them, and what the other party is sent.

use std::collections::{BTreeMap, BTreeSet};

use mrfp_core::mp::{
    self, Bearer, Command, ConfigureConnectionPoint, RemoteConnectionPoint, ReserveConnectionPoint,
    Source, TerminationId,
};

use super::call::{Call, Point, PointState, Stream};
use super::config::{BorderConfig, Nat, SHARD_TIMEOUT_NS, STREAMS_MAX};
use super::counters::count;
use super::ending::ReleaseReason;
use super::engine::{Timer, Turn, next_id};
use super::sdp::{self, Description, Peer, Plan, Profile, Sent, bearer, is_afresh, new_tls_id};
use super::{Action, Border, BorderCallId, ExchangeId, Leg, MediaSecurity, Party, Refusal};

/// An offer and what has become of it.
#[derive(Debug)]
pub(super) struct Exchange {
    id: ExchangeId,
    from: Leg,
    offer: Description,
    lines: Vec<Line>,
    stage: Stage,
    /// What was agreed before; it comes back where this is withdrawn.
    before: Agreed,
}

/// What is agreed between the parties.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed {
    /// By the number of the m-line.
    pub(super) streams: BTreeMap<usize, Stream>,
    caller: Side,
    callee: Side,
}

/// What one party has said and was sent last.
#[derive(Clone, Debug, Default)]
struct Side {
    said: Option<Description>,
    sent: Sent,
}

/// One m-line of the offer.
#[derive(Debug)]
struct Line {
    profile: Profile,
    place: Place,
    /// Name the (D)TLS associations: the offerer's, the answerer's.
    tls_ids: (String, String),
}

/// Where the media of an m-line goes.
#[derive(Debug)]
enum Place {
    /// Not through us.
    Nowhere,
    /// Through the stream that the m-line has already.
    Kept,
    /// Through a new one, until it is agreed.
    New(Box<Stream>),
}

#[derive(Debug)]
enum Stage {
    /// The shard makes connection points.
    Reserving,
    /// It is with the other party.
    Offered,
    /// The shard is told what the answer says.
    Configuring(Box<Configuring>),
    /// It holds, until another answer or another offer comes.
    Answered,
}

/// An answer that is being carried out.
#[derive(Debug)]
struct Configuring {
    answer: Description,
    sdp: Vec<u8>,
    sent: Sent,
    /// By m-line: the stream exists after this.
    exists: Vec<bool>,
}

impl Exchange {
    /// Whether its answer is due.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Answered)
    }

    pub(super) fn new_streams(&self) -> impl Iterator<Item = &Stream> {
        self.lines.iter().filter_map(|line| match &line.place {
            Place::New(stream) => Some(stream.as_ref()),
            _ => None,
        })
    }

    pub(super) fn new_streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.lines.iter_mut().filter_map(|line| match &mut line.place {
            Place::New(stream) => Some(stream.as_mut()),
            _ => None,
        })
    }

    fn stream<'a>(
        &'a self,
        agreed: &'a BTreeMap<usize, Stream>,
        index: usize,
    ) -> Option<&'a Stream> {
        match &self.lines[index].place {
            Place::Nowhere => None,
            Place::Kept => agreed.get(&index),
            Place::New(stream) => Some(stream),
        }
    }

    /// Our ends as the parties see them.
    fn plans(&self, agreed: &BTreeMap<usize, Stream>) -> Vec<Plan> {
        let end = |point: &Point, tls_id: &str| sdp::End {
            address: point.address.expect("the shard has answered"),
            fingerprint: point.fingerprint.clone(),
            tls_id: tls_id.to_owned(),
        };
        let plan = |(index, line): (usize, &Line)| Plan {
            profile: line.profile.clone(),
            ends: self.stream(agreed, index).map(|stream| sdp::Ends {
                offerer: end(stream.point(self.from), &line.tls_ids.0),
                answerer: end(stream.point(self.from.other()), &line.tls_ids.1),
            }),
        };
        self.lines.iter().enumerate().map(plan).collect()
    }
}

impl Agreed {
    /// Whether a party has put the stream of that Termination on hold, so that nobody need connect.
    pub(super) fn is_on_hold(&self, termination: TerminationId) -> bool {
        let has_it = |stream: &Stream| {
            [&stream.caller, &stream.callee].into_iter().any(|it| it.termination == termination)
        };
        let Some((index, _)) = self.streams.iter().find(|(_, stream)| has_it(stream)) else {
            return false;
        };
        let said = [&self.caller.said, &self.callee.said].into_iter().flatten();
        said.filter_map(|said| said.media.get(*index)).any(sdp::Media::is_on_hold)
    }

    fn side(&self, leg: Leg) -> &Side {
        match leg {
            Leg::Caller => &self.caller,
            Leg::Callee => &self.callee,
        }
    }

    fn side_mut(&mut self, leg: Leg) -> &mut Side {
        match leg {
            Leg::Caller => &mut self.caller,
            Leg::Callee => &mut self.callee,
        }
    }
}

impl Border {
    /// A party offers: connection points are reserved on both sides, so that the offer that goes on and the
    /// answer that comes back can name them (TS 23.334 clauses 6.2.10.4.2 and 6.2.10.4.3).
    pub(super) fn offered(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        exchange: ExchangeId,
        from: Leg,
        sdp: &[u8],
    ) {
        if let Err(refusal) = self.begin_exchange(turn, id, call, exchange, from, sdp) {
            return self.refuse_offer(id, exchange, refusal);
        }
        if call.awaiting.is_empty() {
            self.reserved(turn, id, call);
        } else {
            self.timers.set(Timer::Shard(id), turn.now_ns + SHARD_TIMEOUT_NS);
        }
    }

    fn begin_exchange(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        exchange: ExchangeId,
        from: Leg,
        sdp: &[u8],
    ) -> Result<(), Refusal> {
        if let Some(reason) = call.not_admitted {
            return Err(Refusal::unavailable(reason));
        }
        if call.exchange.as_ref().is_some_and(Exchange::is_under_way) {
            return Err(Refusal::overlapping());
        }
        let offer = sdp::read(sdp)?;
        let shard = match call.shard {
            Some(shard) => shard,
            None => self.shards.choose().ok_or_else(|| Refusal::unavailable("No media plane"))?,
        };
        let said = call.agreed.side(from).said.as_ref();
        let terms = self.config.terms(call, from);
        let mut lines = Vec::with_capacity(offer.media.len());
        let mut reservations = Vec::new();
        let mut anchored = 0;
        for (index, media) in offer.media.iter().enumerate() {
            let present =
                call.agreed.streams.get(&index).filter(|stream| stream.kind == media.kind);
            let previous = present.map(|stream| &stream.profile);
            let mut profile = terms.decide(media, security(call), previous);
            if profile.is_anchored() {
                anchored += 1;
                if anchored > STREAMS_MAX {
                    let refusal = Refusal::with_text(488, "Too many media streams");
                    profile = Profile::Refused(refusal);
                }
            }
            if !profile.is_anchored() {
                let tls_ids = Default::default();
                lines.push(Line { profile, place: Place::Nowhere, tls_ids });
                continue;
            }
            // A stream whose protection changes is another one: TLS ends elsewhere.
            if let Some(present) = present.filter(|present| present.profile == profile) {
                let afresh = said.is_none_or(|said| is_afresh(said, &offer, index));
                let offerer = match afresh {
                    true => new_tls_id(turn.random),
                    false => present.point(from).tls_id.clone(),
                };
                let tls_ids = (offerer, present.point(from.other()).tls_id.clone());
                lines.push(Line { profile, place: Place::Kept, tls_ids });
                continue;
            }
            let tls_ids = (new_tls_id(turn.random), new_tls_id(turn.random));
            let point = |leg: Leg, termination| {
                let bearer = bearer(media.kind, &profile, call.party(leg).side);
                Point::new(termination, bearer)
            };
            let stream = Stream {
                context: mp::ContextId(next_id(&mut self.last_id)),
                kind: media.kind,
                profile: profile.clone(),
                caller: point(Leg::Caller, TerminationId(next_id(&mut self.last_id))),
                callee: point(Leg::Callee, TerminationId(next_id(&mut self.last_id))),
            };
            // The side the offer goes to comes first.
            for leg in [from.other(), from] {
                let side = *self.config.side(call.party(leg).side);
                let point = stream.point(leg);
                reservations.push(ReserveConnectionPoint {
                    context: stream.context,
                    termination: point.termination,
                    realm: side.realm,
                    interface: side.interface,
                    bearer: point.bearer,
                    remote: None,
                });
            }
            count(&mut self.counters.streams, profile_name(&profile));
            lines.push(Line { profile, place: Place::New(Box::new(stream)), tls_ids });
        }
        if !reservations.is_empty() {
            call.shard = Some(shard);
        }
        for reservation in reservations {
            let termination = reservation.termination;
            self.by_termination.insert(termination, id);
            self.shards.add_termination(shard);
            call.awaiting.insert(termination);
            self.command(shard, Command::ReserveConnectionPoint(Box::new(reservation)));
        }
        // What was declined by all of those who answered the last one.
        self.drop_exchange(turn, call);
        let before = call.agreed.clone();
        call.exchange =
            Some(Exchange { id: exchange, from, offer, lines, stage: Stage::Reserving, before });
        Ok(())
    }

    /// All connection points are there: the offer goes on.
    fn reserved(&mut self, turn: &mut Turn<'_>, id: BorderCallId, call: &mut Call) {
        let mut exchange = call.exchange.take().expect("an offer waits");
        let answerer = exchange.from.other();
        let terms = self.config.terms(call, exchange.from);
        let plans = exchange.plans(&call.agreed.streams);
        let mut sent = call.agreed.side(answerer).sent.clone();
        match terms.offer(&exchange.offer, &plans, &mut sent) {
            Ok(rewritten) => {
                call.agreed.side_mut(answerer).sent = sent;
                count(&mut self.counters.offers, call.party(exchange.from).side);
                let (name, outcome) = (exchange.id, Ok(rewritten.sdp()));
                self.actions.push_back(Action::Offer { call: id, exchange: name, outcome });
                exchange.stage = Stage::Offered;
                call.exchange = Some(exchange);
            }
            Err(refusal) => {
                let name = exchange.id;
                call.exchange = Some(exchange);
                self.drop_exchange(turn, call);
                self.refuse_offer(id, name, refusal);
            }
        }
    }

    /// The other party answers: both connection points learn their peers.
    pub(super) fn answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        name: ExchangeId,
        sdp: &[u8],
    ) {
        let current = call.exchange.take_if(|exchange| exchange.id == name);
        let Some(mut exchange) = current else {
            return self.refuse_answer(id, name, Refusal::unknown());
        };
        let configuring = self.configure(call, &mut exchange, sdp);
        match configuring {
            Ok(configuring) => {
                exchange.stage = Stage::Configuring(Box::new(configuring));
                call.exchange = Some(exchange);
                if call.awaiting.is_empty() {
                    self.configured(turn, id, call);
                } else {
                    self.timers.set(Timer::Shard(id), turn.now_ns + SHARD_TIMEOUT_NS);
                }
            }
            Err(refusal) => {
                call.exchange = Some(exchange);
                self.refuse_answer(id, name, refusal);
                self.restore(turn, id, call);
            }
        }
    }

    fn configure(
        &mut self,
        call: &mut Call,
        exchange: &mut Exchange,
        sdp: &[u8],
    ) -> Result<Configuring, Refusal> {
        let answer = sdp::read(sdp)?;
        let from = exchange.from;
        let terms = self.config.terms(call, from);
        let mut sent = call.agreed.side(from).sent.clone();
        let said: Vec<bool> = (0..exchange.offer.media.len())
            .map(|index| {
                let said = call.agreed.side(from.other()).said.as_ref();
                said.is_none_or(|said| is_afresh(said, &answer, index))
            })
            .collect();
        let plans = exchange.plans(&call.agreed.streams);
        let answered = terms.answer(&exchange.offer, &plans, &answer, &mut sent)?;
        for (index, configured) in answered.media.iter().enumerate() {
            let Some(configured) = configured else { continue };
            let nats = [from, from.other()].map(|leg| self.config.side(call.party(leg).side).nat);
            let was_agreed = exchange.before.streams.contains_key(&index);
            let line = &mut exchange.lines[index];
            let stream = match &mut line.place {
                Place::New(stream) => stream.as_mut(),
                _ => {
                    call.agreed.streams.get_mut(&index).expect("an m-line with ends has its stream")
                }
            };
            let ids = line.tls_ids.clone();
            let is_afresh = [stream.point(from).tls_id != ids.0, said[index]];
            // The shard has ended both connections with the one that was lost, and TLS of the parties' own is
            // one from end to end.
            let is_one = line.profile == Profile::Passed && was_agreed;
            let both_afresh = !stream.kind.is_datagrams()
                && (stream.has_lost_bearer() || (is_one && is_afresh.contains(&true)));
            let sides = [
                (from, &configured.offerer, ids.0, is_afresh[0], nats[0]),
                (from.other(), &configured.answerer, ids.1, is_afresh[1], nats[1]),
            ];
            for (leg, remote, tls_id, is_afresh, nat) in sides {
                let point = stream.point_mut(leg);
                let remote = placed(remote, point.bearer, nat);
                // Where nothing was before there is nothing to give up.
                let is_afresh = is_afresh || both_afresh || point.state == PointState::Lost;
                let is_afresh = point.remote.is_some() && is_afresh;
                point.tls_id = tls_id;
                if is_afresh || point.remote.as_ref() != Some(&remote) {
                    let shard = call.shard.expect("a call with streams has its shard");
                    self.configure_point(shard, &mut call.awaiting, point, remote, is_afresh);
                }
            }
        }
        let exists = answered.media.iter().map(Option::is_some).collect();
        Ok(Configuring { answer, sdp: answered.rewritten.sdp(), sent, exists })
    }

    fn configure_point(
        &mut self,
        shard: mp::ShardId,
        awaiting: &mut BTreeSet<TerminationId>,
        point: &mut Point,
        remote: RemoteConnectionPoint,
        afresh: bool,
    ) {
        point.remote = Some(remote.clone());
        if afresh {
            point.state = PointState::Waiting;
        }
        awaiting.insert(point.termination);
        let configure = ConfigureConnectionPoint { termination: point.termination, remote, afresh };
        self.command(shard, Command::ConfigureConnectionPoint(Box::new(configure)));
    }

    /// The shard has carried the answer out: it goes back.
    fn configured(&mut self, turn: &mut Turn<'_>, id: BorderCallId, call: &mut Call) {
        let mut exchange = call.exchange.take().expect("an answer waits");
        let Stage::Configuring(configuring) =
            std::mem::replace(&mut exchange.stage, Stage::Answered)
        else {
            unreachable!("the caller has seen it");
        };
        let Configuring { answer, sdp, sent, exists } = *configuring;
        let is_first = exchange.before.side(exchange.from).said.is_none();
        for (index, exists) in exists.into_iter().enumerate() {
            let line = &mut exchange.lines[index];
            let place = std::mem::replace(&mut line.place, Place::Nowhere);
            let former = match place {
                Place::New(stream) if exists => {
                    line.place = Place::Kept;
                    call.agreed.streams.insert(index, *stream)
                }
                // Another branch of a fork may take what this one has declined (RFC 3261 section 13.2.2.4).
                Place::New(stream) if is_first => {
                    line.place = Place::New(stream);
                    call.agreed.streams.remove(&index)
                }
                Place::New(stream) => {
                    line.profile = declined();
                    self.give_back_stream(turn, call, &stream);
                    call.agreed.streams.remove(&index)
                }
                Place::Kept if exists => {
                    line.place = Place::Kept;
                    None
                }
                // Declined, or switched off by the offer.
                Place::Kept => {
                    line.profile = declined();
                    call.agreed.streams.remove(&index)
                }
                Place::Nowhere => call.agreed.streams.remove(&index),
            };
            if let Some(former) = former {
                self.give_back_stream(turn, call, &former);
            }
        }
        let from = exchange.from;
        call.agreed.side_mut(from).said = Some(exchange.offer.clone());
        call.agreed.side_mut(from).sent = sent;
        call.agreed.side_mut(from.other()).said = Some(answer);
        count(&mut self.counters.answers, call.party(from.other()).side);
        self.actions.push_back(Action::Answer {
            call: id,
            exchange: exchange.id,
            outcome: Ok(sdp),
        });
        call.exchange = Some(exchange);
        if call.lost.is_some() && !call.has_lost_bearer() {
            call.lost = None;
            self.timers.clear(Timer::Recovery(id));
        }
    }

    /// The offer was refused or taken back.
    pub(super) fn withdrawn(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        name: ExchangeId,
    ) {
        if call.exchange.as_ref().is_some_and(|exchange| exchange.id == name) {
            self.counters.withdrawn += 1;
            self.restore(turn, id, call);
        }
    }

    /// Everything becomes as it was before the exchange.
    fn restore(&mut self, turn: &mut Turn<'_>, id: BorderCallId, call: &mut Call) {
        let Some(exchange) = &mut call.exchange else { return };
        let before = std::mem::take(&mut exchange.before);
        let is_whole = before.streams.iter().all(|(index, stream)| {
            call.agreed.streams.get(index).is_some_and(|now| now.context == stream.context)
        });
        if !is_whole {
            // A stream was given up for another; the first answer has ended it.
            return self.release(turn, id, call, ReleaseReason::StreamReplaced);
        }
        // What was sent stays what was sent last: its version has been used.
        call.agreed.caller.said = before.caller.said;
        call.agreed.callee.said = before.callee.said;
        let added: Vec<usize> = call
            .agreed
            .streams
            .keys()
            .filter(|index| !before.streams.contains_key(index))
            .copied()
            .collect();
        for index in added {
            let stream = call.agreed.streams.remove(&index).expect("just seen");
            self.give_back_stream(turn, call, &stream);
        }
        for (index, old) in before.streams {
            let stream = call.agreed.streams.get_mut(&index).expect("just seen");
            for leg in [Leg::Caller, Leg::Callee] {
                let (point, old) = (stream.point_mut(leg), old.point(leg));
                point.tls_id.clone_from(&old.tls_id);
                let Some(remote) = &old.remote else { continue };
                if point.remote.as_ref() != Some(remote) {
                    let shard = call.shard.expect("a call with streams has its shard");
                    self.configure_point(shard, &mut call.awaiting, point, remote.clone(), true);
                }
            }
        }
        self.drop_exchange(turn, call);
        if !call.awaiting.is_empty() {
            self.timers.set(Timer::Shard(id), turn.now_ns + SHARD_TIMEOUT_NS);
        }
    }

    /// Forgets an exchange, and what was reserved for it alone.
    fn drop_exchange(&mut self, turn: &mut Turn<'_>, call: &mut Call) {
        let Some(exchange) = call.exchange.take() else { return };
        for stream in exchange.new_streams() {
            self.give_back_stream(turn, call, stream);
        }
    }

    /// The shard has answered one command of the call, and now perhaps all of them.
    pub(super) fn shard_answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        termination: TerminationId,
    ) {
        if !call.awaiting.remove(&termination) || !call.awaiting.is_empty() {
            return;
        }
        self.timers.clear(Timer::Shard(id));
        match call.exchange.as_ref().map(|exchange| &exchange.stage) {
            Some(Stage::Reserving) => self.reserved(turn, id, call),
            Some(Stage::Configuring(_)) => self.configured(turn, id, call),
            Some(Stage::Offered | Stage::Answered) | None => {}
        }
        self.take_waiting(turn, id, call);
    }

    /// The shard cannot do what it was asked.
    pub(super) fn shard_refused(
        &mut self,
        turn: &mut Turn<'_>,
        id: BorderCallId,
        call: &mut Call,
        reason: mp::Refusal,
    ) {
        let refusal = match reason {
            mp::Refusal::TerminationsExhausted => Refusal::unavailable("Too many media streams"),
            mp::Refusal::CertificatesExhausted => Refusal::unavailable("No certificate ready"),
            mp::Refusal::Transport => Refusal::unavailable("No port for media"),
            mp::Refusal::Stopping => Refusal::unavailable("Shutting down"),
            mp::Refusal::Busy => Refusal::overlapping(),
            mp::Refusal::ContextFull | mp::Refusal::IdentityInUse | mp::Refusal::TerminationId => {
                Refusal::with_text(500, "Media plane error")
            }
        };
        self.timers.clear(Timer::Shard(id));
        call.awaiting.clear();
        match call.exchange.as_ref().map(|exchange| (exchange.id, &exchange.stage)) {
            Some((name, Stage::Reserving)) => {
                self.drop_exchange(turn, call);
                self.refuse_offer(id, name, refusal);
            }
            // Half of what was agreed holds, or what was before cannot come back.
            Some(_) | None => return self.release(turn, id, call, ReleaseReason::ShardRefused),
        }
        self.take_waiting(turn, id, call);
    }

    /// The shard owes an answer for too long: nobody knows what it has carried out.
    pub(super) fn shard_silent(&mut self, turn: &mut Turn<'_>, id: BorderCallId) {
        let mut call = self.calls.remove(&id).expect("a timer has its call");
        self.release(turn, id, &mut call, ReleaseReason::ShardLost);
        self.calls.insert(id, call);
    }

    /// Refuses what the front waits for.
    pub(super) fn refuse_due(&mut self, id: BorderCallId, call: &Call, refusal: &Refusal) {
        match call.exchange.as_ref().map(|exchange| (exchange.id, &exchange.stage)) {
            Some((name, Stage::Reserving)) => self.refuse_offer(id, name, refusal.clone()),
            Some((name, Stage::Configuring(_))) => self.refuse_answer(id, name, refusal.clone()),
            Some((_, Stage::Offered | Stage::Answered)) | None => {}
        }
    }
}

impl BorderConfig {
    /// The terms of an exchange.
    fn terms(&self, call: &Call, from: Leg) -> sdp::Exchange<'_> {
        let peer = |leg: Leg| {
            let party = call.party(leg);
            let side = self.side(party.side);
            Peer { role: party.side, source: source(party, side.nat), keeps_path: side.cema }
        };
        sdp::Exchange { rules: &self.rules, offerer: peer(from), answerer: peer(from.other()) }
    }
}

/// From where the media of a party may come.
fn source(party: &Party, nat: Nat) -> Source {
    match (nat, party.signalling) {
        (Nat::Off, _) => Source::Address,
        // A listener of both families has it as IPv4 in IPv6.
        (Nat::Host | Nat::Latch, Some(host)) => Source::Host(host.to_canonical()),
        (Nat::Host, None) => Source::Address,
        (Nat::Latch, None) => Source::Any,
    }
}

/// From where media may come, given what carries it.
fn placed(remote: &RemoteConnectionPoint, bearer: Bearer, nat: Nat) -> RemoteConnectionPoint {
    let mut remote = remote.clone();
    remote.source = match (remote.source, remote.address) {
        // The fingerprint tells who it is, so it may move.
        (_, _) if nat == Nat::Latch && bearer.is_protected() => Source::Any,
        // The port that a connection comes from is nobody's to announce (RFC 4145 section 4.1).
        (Source::Address, Some(address)) if !bearer.is_datagrams() => {
            Source::Host(address.ip().to_canonical())
        }
        (source, _) => source,
    };
    remote
}

/// What the registration of the UE has agreed, whichever of the parties that is.
fn security(call: &Call) -> MediaSecurity {
    let (caller, callee) = (call.caller.security, call.callee.security);
    MediaSecurity {
        msrp_tls: caller.msrp_tls || callee.msrp_tls,
        bfcp_tls: caller.bfcp_tls || callee.bfcp_tls,
        udptl_dtls: caller.udptl_dtls || callee.udptl_dtls,
    }
}

/// An m-line of an offer that the other party does not take.
fn declined() -> Profile {
    Profile::Refused(Refusal::with_text(488, "The media was declined"))
}

/// Its name in metrics and views.
pub(super) fn profile_name(profile: &Profile) -> &'static str {
    match profile {
        Profile::Passed => "end-to-end",
        Profile::EndToAccessEdge => "end-to-access-edge",
        Profile::Plain => "plain",
        Profile::Untouched => "untouched",
        Profile::Refused(_) => "refused",
    }
}
