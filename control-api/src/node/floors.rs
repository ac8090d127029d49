//! Floors as operators ask for them, and as applications are told of them.
//!
//! A shard answers questions in their order, so who asked waits in a queue for each shard.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mrfp_core::floor::{FloorView, Refusal, RequestView};
use mrfp_core::mp::{ContextId, FloorAction, FloorsAnswer, FloorsView, ShardId};
use mrfp_protocol::bfcp::{Priority, RequestStatus};
use serde::Serialize;
use tokio::sync::oneshot;

use super::webhook::Webhook;
use crate::http::{
    FloorDetail, FloorQuery, FloorsDetail, FloorsError, PolicyDetail, RequestDetail, UserDetail,
};
use crate::mrfc::{CallId, MemberView, RoomView};

/// What the control loop keeps of floors.
pub(super) struct FloorControl {
    /// By shard.
    questions: Vec<VecDeque<Question>>,
    pub(super) webhook: Webhook,
    /// Who holds floors of which the application has been told: when that ends, the member and its room
    /// may be gone.
    held: HashMap<Held, Holder>,
    /// Of the last event.
    number: u64,
}

/// Somebody waits for an answer.
struct Question {
    room: String,
    reply: Reply,
}

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Box<FloorsDetail>, FloorsError>>;

/// A floor that somebody holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Held {
    pub(super) context: ContextId,
    pub(super) floor: u16,
    pub(super) user: u16,
}

/// Who that is.
struct Holder {
    shard: ShardId,
    room: String,
    label: Option<String>,
    call: CallId,
    uri: String,
}

/// What the application gets.
#[derive(Serialize)]
struct HolderChanged<'a> {
    event: &'static str,
    /// From 1; one that is missing was dropped, one that comes again is known.
    number: u64,
    /// Seconds since the epoch.
    time: f64,
    room: &'a str,
    floor: u16,
    label: Option<&'a str>,
    user: u16,
    call: u64,
    uri: &'a str,
    holds: bool,
}

impl FloorControl {
    pub(super) fn new(shards: usize, webhook: Webhook) -> Self {
        Self {
            questions: (0..shards).map(|_| VecDeque::new()).collect(),
            webhook,
            held: HashMap::new(),
            number: 0,
        }
    }

    /// Somebody waits for the answer to the next command for floors that this shard gets; without
    /// room for the question it is answered at once. True: the command is to be sent.
    pub(super) fn ask(&mut self, shard: usize, room: &str, reply: Reply) -> bool {
        let questions = &mut self.questions[shard];
        if questions.len() >= QUESTIONS_MAX {
            // Who asked may have gone meanwhile.
            let _ = reply.send(Err(FloorsError::Busy));
            return false;
        }
        questions.push_back(Question { room: room.to_owned(), reply });
        true
    }

    /// A shard has answered the oldest question. `members` is the room as it is now, if there is one.
    pub(super) fn answered(
        &mut self,
        shard: usize,
        answer: FloorsAnswer,
        members: Option<&RoomView<'_>>,
    ) {
        // A shard that has ended is given up before its last answers are read.
        let Some(question) = self.questions[shard].pop_front() else { return };
        let Question { room, reply } = question;
        let answer = match answer {
            Ok(view) => Ok(Box::new(detail(room, &view, members))),
            Err(Refusal::Unknown) => Err(FloorsError::NoFloor),
            Err(Refusal::Exhausted | Refusal::InUse) => Err(FloorsError::Exhausted),
            Err(Refusal::Policy) => Err(FloorsError::Policy),
        };
        // Who asked may have gone meanwhile.
        let _ = reply.send(answer);
    }

    /// Somebody holds a floor for a medium that others mix, or no longer.
    /// `room` is that of the Context, if there is one.
    pub(super) fn changed(
        &mut self,
        shard: ShardId,
        held: Held,
        holds: bool,
        room: Option<&RoomView<'_>>,
    ) {
        let Held { context, floor, user } = held;
        tracing::info!(context = context.0, floor, user, holds, "the holder of a floor");
        if !self.webhook.is_on() {
            return;
        }
        if !holds {
            if let Some(holder) = self.held.remove(&held) {
                self.tell(held, &holder, false);
            }
            return;
        }
        // Who is not found has just hung up; that the floor is taken from it follows.
        let Some((room, member)) = room.and_then(|room| Some((room, member(room, user)?))) else {
            return;
        };
        let holder = Holder {
            shard,
            room: room.name.to_owned(),
            label: room.floor(floor).map(|floor| floor.label.clone()),
            call: member.call,
            uri: member.uri.to_owned(),
        };
        self.tell(held, &holder, true);
        self.held.insert(held, holder);
    }

    /// A shard has ended: nobody answers, and nobody holds its floors any more.
    pub(super) fn shard_ended(&mut self, index: usize, shard: ShardId) {
        self.questions[index].clear();
        let gone = self.held.iter().filter(|(_, holder)| holder.shard == shard);
        let mut gone: Vec<_> = gone.map(|(held, _)| *held).collect();
        gone.sort_unstable();
        for held in gone {
            let holder = self.held.remove(&held).expect("just seen");
            self.tell(held, &holder, false);
        }
    }

    fn tell(&mut self, held: Held, holder: &Holder, holds: bool) {
        self.number += 1;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = HolderChanged {
            event: "floor",
            number: self.number,
            time: time.as_secs_f64(),
            room: &holder.room,
            floor: held.floor,
            label: holder.label.as_deref(),
            user: held.user,
            call: holder.call.0,
            uri: &holder.uri,
            holds,
        };
        self.webhook.post(serde_json::to_vec(&event).expect("names and numbers"));
    }
}

/// What a shard is to do.
///
/// # Errors
/// The member is not there, or takes no part in floor control.
pub(super) fn action(query: FloorQuery, room: &RoomView<'_>) -> Result<FloorAction, FloorsError> {
    let user = |call: CallId| {
        let member = room.members.iter().find(|member| member.call == call);
        member.ok_or(FloorsError::NotFound)?.floor_user.ok_or(FloorsError::NoParticipant)
    };
    Ok(match query {
        FloorQuery::List => FloorAction::List,
        FloorQuery::Grant { floor, call } => {
            FloorAction::Grant { floor_id: floor, user_id: user(call)? }
        }
        FloorQuery::Revoke { floor, call } => {
            FloorAction::Revoke { floor_id: floor, user_id: user(call)? }
        }
        FloorQuery::Chair { floor, call } => {
            FloorAction::SetChair { floor_id: floor, user_id: call.map(user).transpose()? }
        }
        FloorQuery::Policy { floor, policy } => FloorAction::SetPolicy { floor_id: floor, policy },
        FloorQuery::Moderate(moderated) => FloorAction::Moderate(moderated),
    })
}

/// The floors of a room in the words of the API. The room may have ended meanwhile.
fn detail(name: String, view: &FloorsView, room: Option<&RoomView<'_>>) -> FloorsDetail {
    let now_ns = mrfp_io::monotonic_ns();
    let user = |user: u16| {
        let member = room.and_then(|room| member(room, user));
        UserDetail {
            user,
            call: member.map(|member| member.call.0),
            uri: member.map(|member| member.uri.to_owned()),
        }
    };
    let request = |request: &RequestView| RequestDetail {
        request: request.request_id,
        user: user(request.user_id),
        requested_by: request.requested_by.map(user),
        status: status_name(request.status),
        position: request.queue_position,
        priority: request.priority.map(priority_name),
        seconds: Duration::from_nanos(now_ns.saturating_sub(request.since_ns)).as_secs_f64(),
    };
    let floor = |floor: &FloorView| {
        let known = room.and_then(|room| room.floor(floor.floor_id));
        let requests = |holds| {
            let requests = floor.requests.iter().filter(move |request| request.holds == holds);
            requests.map(request).collect()
        };
        FloorDetail {
            floor: floor.floor_id,
            label: known.map(|known| known.label.clone()),
            policy: PolicyDetail::from(&floor.policy),
            chair: floor.chair.map(user),
            holders: requests(true),
            queue: requests(false),
        }
    };
    FloorsDetail {
        room: name,
        conference: room.and_then(|room| room.conference_id),
        moderated: view.moderated,
        message_floor: view.message_floor_id,
        floors: view.floors.iter().map(floor).collect(),
    }
}

fn member<'a>(room: &'a RoomView<'_>, user: u16) -> Option<&'a MemberView<'a>> {
    room.members.iter().find(|member| member.floor_user == Some(user))
}

fn status_name(status: RequestStatus) -> &'static str {
    match status {
        RequestStatus::Pending => "pending",
        RequestStatus::Accepted => "accepted",
        RequestStatus::Granted => "granted",
        RequestStatus::Denied => "denied",
        RequestStatus::Cancelled => "cancelled",
        RequestStatus::Released => "released",
        RequestStatus::Revoked => "revoked",
    }
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Lowest => "lowest",
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
        Priority::Highest => "highest",
    }
}

/// Questions about floors that one shard may have unanswered: it answers within a turn, so more of
/// them mean that it does not.
const QUESTIONS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use mrfp_core::floor::{FloorOrder, FloorPolicy};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::config::Events;
    use crate::mrfc::{MemberState, RoomFloor};

    const SHARD: ShardId = ShardId(0);

    fn policy() -> FloorPolicy {
        FloorPolicy {
            order: FloorOrder::Chair,
            holders_max: 1,
            requests_per_user_max: 1,
            holding_max_ns: None,
        }
    }

    fn floor() -> RoomFloor {
        let label = "camera".to_owned();
        RoomFloor { floor_id: 2, label, policy: policy(), governs_messages: false }
    }

    fn member(call: u64, uri: &str, floor_user: Option<u16>) -> MemberView<'_> {
        MemberView {
            call: CallId(call),
            uri,
            nickname: None,
            muted: false,
            floor_user,
            state: MemberState::Connected,
            secure: false,
            keyed: false,
            since_ns: 0,
        }
    }

    /// Alice is user 1, Bob user 2, and Carol knows no BFCP.
    fn room(floors: &[RoomFloor]) -> RoomView<'_> {
        let members = [("sip:alice@x", Some(1)), ("sip:bob@x", Some(2)), ("sip:carol@x", None)];
        let members = (11..).zip(members).map(|(call, (uri, user))| member(call, uri, user));
        RoomView {
            name: "board",
            uri: "sip:board@x",
            locked: false,
            moderated: Some(false),
            floors,
            subscriptions: 0,
            context: ContextId(1),
            shard: SHARD,
            conference_id: Some(77),
            members: members.collect(),
        }
    }

    fn without_webhook() -> FloorControl {
        FloorControl::new(2, Webhook::start(&Events::default()).expect("valid"))
    }

    fn request(request_id: u16, user_id: u16, holds: bool, status: RequestStatus) -> RequestView {
        RequestView {
            request_id,
            user_id,
            requested_by: None,
            holds,
            status,
            queue_position: u8::from(!holds),
            priority: None,
            since_ns: mrfp_io::monotonic_ns().saturating_sub(5_000_000_000),
        }
    }

    #[tokio::test]
    async fn answers_reach_who_asked_in_the_order_of_the_shard() {
        let mut floors = without_webhook();
        let known = [floor()];
        let (first, first_answer) = oneshot::channel();
        let (other_shard, other_answer) = oneshot::channel();
        let (second, second_answer) = oneshot::channel();
        assert!(floors.ask(0, "board", first));
        assert!(floors.ask(1, "other", other_shard));
        assert!(floors.ask(0, "board", second));
        floors.answered(0, Err(Refusal::Unknown), None);
        let requests = vec![
            RequestView { requested_by: Some(1), ..request(7, 2, true, RequestStatus::Granted) },
            RequestView {
                priority: Some(Priority::High),
                ..request(8, 9, false, RequestStatus::Accepted)
            },
        ];
        let view = FloorView { floor_id: 2, policy: policy(), chair: Some(1), requests };
        let view = FloorsView { moderated: false, message_floor_id: None, floors: vec![view] };
        floors.answered(0, Ok(Box::new(view)), Some(&room(&known)));
        assert_eq!(first_answer.await.expect("answered"), Err(FloorsError::NoFloor));
        let detail = second_answer.await.expect("answered").expect("carried out");
        assert_eq!((detail.room.as_str(), detail.conference), ("board", Some(77)));
        let [shown] = detail.floors.try_into().expect("one floor");
        assert_eq!((shown.floor, shown.label.as_deref()), (2, Some("camera")));
        let user = |user, call, uri: &str| UserDetail { user, call, uri: Some(uri.to_owned()) };
        assert_eq!(shown.chair, Some(user(1, Some(11), "sip:alice@x")));
        let ([holder], [waiting]) = (&shown.holders[..], &shown.queue[..]) else {
            panic!("one of each: {shown:?}")
        };
        assert_eq!(holder.user, user(2, Some(12), "sip:bob@x"));
        assert_eq!(holder.requested_by, Some(user(1, Some(11), "sip:alice@x")));
        assert!((5.0..3600.0).contains(&holder.seconds), "{holder:?}");
        // User 9 has just left.
        assert_eq!(waiting.user, UserDetail { user: 9, call: None, uri: None });
        let how = (waiting.status, waiting.position, waiting.priority);
        assert_eq!(how, ("accepted", 1, Some("high")));
        // Nobody is left waiting for a shard that has ended, and its last answers find nobody.
        floors.shard_ended(1, ShardId(1));
        assert!(other_answer.await.is_err());
        floors.answered(1, Err(Refusal::Unknown), None);
    }

    #[tokio::test]
    async fn a_shard_that_does_not_answer_is_asked_no_more() {
        let mut floors = without_webhook();
        let unanswered: Vec<_> = (0..QUESTIONS_MAX)
            .map(|_| {
                let (reply, answer) = oneshot::channel();
                assert!(floors.ask(0, "board", reply));
                answer
            })
            .collect();
        let (reply, answer) = oneshot::channel();
        assert!(!floors.ask(0, "board", reply));
        assert_eq!(answer.await.expect("answered"), Err(FloorsError::Busy));
        drop(unanswered);
    }

    #[test]
    fn a_member_is_named_by_its_call_and_must_have_a_bfcp_stream() {
        let known = [floor()];
        let room = room(&known);
        let grant = |call| action(FloorQuery::Grant { floor: 2, call: CallId(call) }, &room);
        assert_eq!(grant(12), Ok(FloorAction::Grant { floor_id: 2, user_id: 2 }));
        assert_eq!(grant(13), Err(FloorsError::NoParticipant));
        assert_eq!(grant(14), Err(FloorsError::NotFound));
        let nobody = FloorQuery::Chair { floor: 2, call: None };
        assert_eq!(action(nobody, &room), Ok(FloorAction::SetChair { floor_id: 2, user_id: None }));
    }

    /// Takes events until `count` have come.
    async fn events(listener: TcpListener, count: usize) -> Vec<serde_json::Value> {
        let mut events = Vec::new();
        let (mut stream, _) = listener.accept().await.expect("a connection");
        while events.len() < count {
            let mut request = String::new();
            let event = loop {
                let mut bytes = Vec::new();
                assert!(stream.read_buf(&mut bytes).await.expect("readable") > 0);
                request.push_str(std::str::from_utf8(&bytes).expect("text"));
                let body = request.split_once("\r\n\r\n").map(|(_, body)| body);
                let parsed = body.and_then(|body| serde_json::from_str(body).ok());
                if let Some(event) = parsed {
                    break event;
                }
            };
            events.push(event);
            let taken = b"HTTP/1.1 204 taken\r\n\r\n";
            stream.write_all(taken).await.expect("sent");
        }
        events
    }

    #[tokio::test]
    async fn an_application_is_told_who_holds_a_floor_also_when_that_has_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let target = format!("http://{}/", listener.local_addr().expect("bound"));
        let config = Events { webhook: Some(target), ..Events::default() };
        let mut floors = FloorControl::new(2, Webhook::start(&config).expect("valid"));
        let known = [floor()];
        let room = room(&known);
        let held = |user| Held { context: ContextId(1), floor: 2, user };
        floors.changed(SHARD, held(1), true, Some(&room));
        // Who has no call any more was never told of.
        floors.changed(SHARD, held(9), true, Some(&room));
        floors.changed(SHARD, held(9), false, Some(&room));
        floors.changed(SHARD, held(1), false, None);
        floors.changed(SHARD, held(2), true, Some(&room));
        floors.shard_ended(1, ShardId(1));
        floors.shard_ended(0, SHARD);
        floors.changed(SHARD, held(2), false, None);
        let told = events(listener, 4).await;
        floors.webhook.finish(Instant::now() + Duration::from_secs(10)).await;
        for (number, event) in (1..).zip(&told) {
            assert_eq!(event["number"], number, "{told:?}");
            assert_eq!(
                (&event["event"], &event["room"], &event["floor"], &event["label"]),
                (&"floor".into(), &"board".into(), &2.into(), &"camera".into()),
            );
            assert!(event["time"].as_f64().is_some_and(|time| time > 1.7e9), "{event}");
        }
        let who = told.iter().map(|it| (it["uri"].as_str(), it["call"].as_u64(), &it["holds"]));
        let alice = (Some("sip:alice@x"), Some(11));
        let bob = (Some("sip:bob@x"), Some(12));
        let expected = [(alice, true), (alice, false), (bob, true), (bob, false)];
        let who: Vec<_> = who.map(|(uri, call, holds)| ((uri, call), holds == true)).collect();
        assert_eq!(who, expected);
    }
}
