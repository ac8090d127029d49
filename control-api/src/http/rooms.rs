//! Rooms and what an operator does to them: `/api/v1/rooms`.

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use serde::{Deserialize, Serialize};

use super::admin::{Admin, ask, overloaded};
use super::{Query, RoomDetail};
use crate::mrfc::{Administration, AdministrationError, CallId, DialSecurity};

/// The list of `/api/v1/rooms`.
#[derive(Serialize)]
struct Rooms {
    rooms: Vec<RoomDetail>,
}

/// Whom to call into a room.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Callee {
    uri: String,
    /// As the configuration has it where it is not said.
    security: Option<DialSecurity>,
}

/// A call that was begun; `/api/v1/rooms/ROOM` tells how far it is.
#[derive(Serialize)]
struct Calling {
    call: u64,
}

pub(super) async fn list(State(admin): State<Admin>) -> Response {
    match ask(&admin, |reply| Query::Rooms { name: None, reply }).await {
        Some(rooms) => Json(Rooms { rooms }).into_response(),
        None => overloaded(),
    }
}

pub(super) async fn show(State(admin): State<Admin>, Path(room): Path<String>) -> Response {
    match ask(&admin, |reply| Query::Rooms { name: Some(room), reply }).await {
        Some(rooms) => match rooms.into_iter().next() {
            Some(room) => Json(room).into_response(),
            None => not_found(),
        },
        None => overloaded(),
    }
}

pub(super) async fn lock(state: State<Admin>, Path(room): Path<String>) -> Response {
    administer(state, room, Administration::Lock(true)).await
}

pub(super) async fn unlock(state: State<Admin>, Path(room): Path<String>) -> Response {
    administer(state, room, Administration::Lock(false)).await
}

pub(super) async fn kick(state: State<Admin>, Path((room, call)): Path<(String, u64)>) -> Response {
    administer(state, room, Administration::Kick(CallId(call))).await
}

pub(super) async fn mute(state: State<Admin>, Path((room, call)): Path<(String, u64)>) -> Response {
    administer(state, room, Administration::Mute { call: CallId(call), muted: true }).await
}

pub(super) async fn rekey(
    state: State<Admin>,
    Path((room, call)): Path<(String, u64)>,
) -> Response {
    administer(state, room, Administration::Rekey(CallId(call))).await
}

pub(super) async fn unmute(
    state: State<Admin>,
    Path((room, call)): Path<(String, u64)>,
) -> Response {
    administer(state, room, Administration::Mute { call: CallId(call), muted: false }).await
}

/// `POST /api/v1/rooms/{room}/calls`.
pub(super) fn calls_route() -> MethodRouter<Admin> {
    post(call).layer(DefaultBodyLimit::max(CALLEE_SIZE_MAX))
}

/// 202, or in the words of HTTP why there will be no call.
async fn call(
    State(admin): State<Admin>,
    Path(room): Path<String>,
    Json(callee): Json<Callee>,
) -> Response {
    let Callee { uri: target, security } = callee;
    if !is_sip_uri(&target) {
        return (StatusCode::BAD_REQUEST, "not a SIP URI without headers\n").into_response();
    }
    match ask(&admin, |reply| Query::Dial { room, target, security, reply }).await {
        Some(Ok(CallId(call))) => (StatusCode::ACCEPTED, Json(Calling { call })).into_response(),
        Some(Err(status)) => {
            let (status, text) = match status {
                403 => {
                    (StatusCode::FORBIDDEN, "the room is locked, or the user has too many calls\n")
                }
                404 => (StatusCode::NOT_FOUND, "no such room\n"),
                482 => (StatusCode::CONFLICT, "the room cannot call itself\n"),
                486 => (
                    StatusCode::CONFLICT,
                    "the user is being called already, or the room is full\n",
                ),
                488 => (StatusCode::UNPROCESSABLE_ENTITY, "such calls are not configured\n"),
                _ => return overloaded(),
            };
            (status, text).into_response()
        }
        None => overloaded(),
    }
}

/// What may stand in a Request-URI; whether it leads anywhere the call will tell.
fn is_sip_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("sip" | "sips"))
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"?".contains(&byte))
}

/// 204, 404, 409 where the member's session is changing just now, or 422 where that cannot be done to it.
async fn administer(
    State(admin): State<Admin>,
    room: String,
    administration: Administration,
) -> Response {
    let query = |reply| Query::Administer { room, administration, reply };
    match ask(&admin, query).await {
        Some(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Some(Err(AdministrationError::NotFound)) => not_found(),
        Some(Err(AdministrationError::Busy)) => {
            (StatusCode::CONFLICT, "the member's session is changing; try again\n").into_response()
        }
        Some(Err(AdministrationError::NotKeyed)) => {
            let text = "the member's session has no key that could be renewed\n";
            (StatusCode::UNPROCESSABLE_ENTITY, text).into_response()
        }
        None => overloaded(),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "no such room or member\n").into_response()
}

/// A URI of the length any SIP stack takes, and the words around it.
const CALLEE_SIZE_MAX: usize = 4096;
