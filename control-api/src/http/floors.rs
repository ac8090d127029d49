//! Floors and what an operator does with them: `/api/v1/rooms/ROOM/floors`.

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use mrfp_core::floor::FloorPolicy;
use serde::{Deserialize, Serialize};

use super::Query;
use super::admin::{Admin, ask, overloaded};
use crate::config::Order;
use crate::mrfc::CallId;

/// What is asked of the floors of a room. Each is answered with how they are afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FloorQuery {
    /// Nothing else.
    List,
    /// A member gets a floor.
    Grant {
        /// Which.
        floor: u16,
        /// Who.
        call: CallId,
    },
    /// A floor is taken from a member, or its waiting for it ended.
    Revoke {
        /// Which.
        floor: u16,
        /// From whom.
        call: CallId,
    },
    /// A floor gets a chair, or has none any more.
    Chair {
        /// Which.
        floor: u16,
        /// Who.
        call: Option<CallId>,
    },
    /// A floor is given by other rules.
    Policy {
        /// Which.
        floor: u16,
        /// The rules.
        policy: FloorPolicy,
    },
    /// Whether only who holds the floor for the messages may send them.
    Moderate(bool),
}

/// Why it is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloorsError {
    /// There is no such room, or the call is not in it.
    NotFound,
    /// The room has no floors, or not the one that is meant.
    NoFloor,
    /// The member has no BFCP stream.
    NoParticipant,
    /// There are as many requests for the floor, of the user or on the shard as there may be.
    Exhausted,
    /// The policy lets nobody hold the floor, or ask for it.
    Policy,
    /// The shard is asked too much already.
    Busy,
}

/// The floors of a room.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FloorsDetail {
    /// The room.
    pub room: String,
    /// Its conference, `a=confid`; `null` where the room has just ended.
    pub conference: Option<u32>,
    /// Only who holds the floor for the messages may send them.
    pub moderated: bool,
    /// Number of that floor.
    pub message_floor: Option<u16>,
    /// All of them.
    pub floors: Vec<FloorDetail>,
}

/// A floor.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FloorDetail {
    /// Its number, `a=floorid`.
    pub floor: u16,
    /// Label of the medium it is for, `a=label`; `null` where the room has just ended.
    pub label: Option<String>,
    /// By which rules it is given.
    pub policy: PolicyDetail,
    /// Who decides about requests for it.
    pub chair: Option<UserDetail>,
    /// Who holds it, whoever has held it longest first.
    pub holders: Vec<RequestDetail>,
    /// Who waits for it, whoever gets it next first.
    pub queue: Vec<RequestDetail>,
}

/// By which rules a floor is given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDetail {
    /// Who gets it next.
    pub order: Order,
    /// How many may hold it at a time.
    pub holders_max: u16,
    /// Ongoing requests of one user for it.
    pub requests_per_user_max: u16,
    /// After so long it is taken away; `null`: never.
    pub holding_seconds_max: Option<u64>,
}

/// A user of floors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UserDetail {
    /// `a=userid`.
    pub user: u16,
    /// The member it is; `null` where it has just left.
    pub call: Option<u64>,
    /// SIP URI of that.
    pub uri: Option<String>,
}

/// A request for a floor.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RequestDetail {
    /// FLOOR-REQUEST-ID.
    pub request: u16,
    /// Who is to have the floor.
    #[serde(flatten)]
    pub user: UserDetail,
    /// Who asked, where that is another.
    pub requested_by: Option<UserDetail>,
    /// `granted`, `accepted` or `pending`. A request that is granted and waits does so for other floors.
    pub status: &'static str,
    /// From 1 where it is accepted, else 0.
    pub position: u8,
    /// `lowest`, `low`, `normal`, `high` or `highest`, where it was asked for.
    pub priority: Option<&'static str>,
    /// For how long it has held the floor, or waited.
    pub seconds: f64,
}

impl From<&FloorPolicy> for PolicyDetail {
    fn from(policy: &FloorPolicy) -> Self {
        Self {
            order: policy.order.into(),
            holders_max: policy.holders_max,
            requests_per_user_max: policy.requests_per_user_max,
            holding_seconds_max: policy.holding_max_ns.map(|holding| holding / NANOSECONDS),
        }
    }
}

impl PolicyDetail {
    /// `None` where the holding time is none.
    fn policy(&self) -> Option<FloorPolicy> {
        let holding = self.holding_seconds_max;
        if holding.is_some_and(|seconds| !(1..=HOLDING_SECONDS_MAX).contains(&seconds)) {
            return None;
        }
        Some(FloorPolicy {
            order: self.order.into(),
            holders_max: self.holders_max,
            requests_per_user_max: self.requests_per_user_max,
            holding_max_ns: holding.map(|seconds| seconds * NANOSECONDS),
        })
    }
}

pub(super) async fn list(state: State<Admin>, Path(room): Path<String>) -> Response {
    answer(state, room, FloorQuery::List).await
}

pub(super) async fn grant(
    state: State<Admin>,
    Path((room, floor, call)): Path<(String, u16, u64)>,
) -> Response {
    answer(state, room, FloorQuery::Grant { floor, call: CallId(call) }).await
}

pub(super) async fn revoke(
    state: State<Admin>,
    Path((room, floor, call)): Path<(String, u16, u64)>,
) -> Response {
    answer(state, room, FloorQuery::Revoke { floor, call: CallId(call) }).await
}

pub(super) async fn chair(
    state: State<Admin>,
    Path((room, floor, call)): Path<(String, u16, u64)>,
) -> Response {
    answer(state, room, FloorQuery::Chair { floor, call: Some(CallId(call)) }).await
}

pub(super) async fn no_chair(
    state: State<Admin>,
    Path((room, floor)): Path<(String, u16)>,
) -> Response {
    answer(state, room, FloorQuery::Chair { floor, call: None }).await
}

pub(super) async fn moderate(state: State<Admin>, Path(room): Path<String>) -> Response {
    answer(state, room, FloorQuery::Moderate(true)).await
}

pub(super) async fn unmoderate(state: State<Admin>, Path(room): Path<String>) -> Response {
    answer(state, room, FloorQuery::Moderate(false)).await
}

/// `POST /api/v1/rooms/{room}/floors/{floor}/policy`.
pub(super) fn policy_route() -> MethodRouter<Admin> {
    post(policy).layer(DefaultBodyLimit::max(POLICY_BYTES_MAX))
}

async fn policy(
    state: State<Admin>,
    Path((room, floor)): Path<(String, u16)>,
    Json(policy): Json<PolicyDetail>,
) -> Response {
    match policy.policy() {
        Some(policy) => answer(state, room, FloorQuery::Policy { floor, policy }).await,
        None => refused(FloorsError::Policy),
    }
}

/// The floors as they are now, or in the words of HTTP why they are not as was wanted.
async fn answer(State(admin): State<Admin>, room: String, query: FloorQuery) -> Response {
    match ask(&admin, |reply| Query::Floors { room, query, reply }).await {
        Some(Ok(floors)) => Json(*floors).into_response(),
        Some(Err(error)) => refused(error),
        None => overloaded(),
    }
}

fn refused(error: FloorsError) -> Response {
    let (status, text) = match error {
        FloorsError::NotFound => (StatusCode::NOT_FOUND, "no such room or member\n"),
        FloorsError::NoFloor => (StatusCode::NOT_FOUND, "the room has no such floor\n"),
        FloorsError::NoParticipant => {
            (StatusCode::CONFLICT, "the member has no BFCP stream: it can hold no floor\n")
        }
        FloorsError::Exhausted => {
            (StatusCode::CONFLICT, "too many requests for the floor, or of the member, wait\n")
        }
        FloorsError::Policy => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "holders_max and requests_per_user_max are at least 1, holding_seconds_max is null or 1 \
             to 86400\n",
        ),
        FloorsError::Busy => return overloaded(),
    };
    (status, text).into_response()
}

const NANOSECONDS: u64 = 1_000_000_000;
/// As in the configuration: a day.
const HOLDING_SECONDS_MAX: u64 = 86_400;
/// Four short settings.
const POLICY_BYTES_MAX: usize = 1024;
