//! Rooms and what an operator does to them: `/api/v1/rooms`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::admin::{Admin, ask, overloaded};
use super::{Query, RoomDetail};
use crate::mrfc::{Administration, AdministrationError, CallId};

/// The list of `/api/v1/rooms`.
#[derive(Serialize)]
struct Rooms {
    rooms: Vec<RoomDetail>,
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

pub(super) async fn unmute(
    state: State<Admin>,
    Path((room, call)): Path<(String, u64)>,
) -> Response {
    administer(state, room, Administration::Mute { call: CallId(call), muted: false }).await
}

/// 204, 404, or 409 where the member's session is changing just now.
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
        None => overloaded(),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "no such room or member\n").into_response()
}
