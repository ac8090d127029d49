//! The border: `/api/v1/border/…`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::admin::{Admin, ask, overloaded};
use super::{BorderDetail, Query};

/// The list of `/api/v1/border/calls`.
#[derive(Serialize)]
struct Calls {
    calls: Vec<super::BorderCallDetail>,
}

/// The list of `/api/v1/border/next-hops`.
#[derive(Serialize)]
struct NextHops {
    next_hops: Vec<super::NextHopDetail>,
}

/// What `/api/v1/border/registrations` tells.
#[derive(Serialize)]
struct Registrations {
    registrations: usize,
}

pub(super) async fn calls(State(admin): State<Admin>) -> Response {
    detail(&admin, |border| Json(Calls { calls: border.calls }).into_response()).await
}

pub(super) async fn next_hops(State(admin): State<Admin>) -> Response {
    detail(&admin, |border| Json(NextHops { next_hops: border.next_hops }).into_response()).await
}

pub(super) async fn registrations(State(admin): State<Admin>) -> Response {
    let json = |border: BorderDetail| {
        Json(Registrations { registrations: border.registrations }).into_response()
    };
    detail(&admin, json).await
}

async fn detail(admin: &Admin, answer: impl FnOnce(BorderDetail) -> Response) -> Response {
    match ask(admin, Query::Border).await {
        Some(Some(border)) => answer(*border),
        Some(None) => (StatusCode::NOT_FOUND, "this node is no border\n").into_response(),
        None => overloaded(),
    }
}
