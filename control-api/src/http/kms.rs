//! The KMS's HTTP binding: one binary MIKEY message each way (RFC 6043 section 7 leaves the
//! transport to others; 3GPP's is HTTP POST with `application/mikey`, RFC 3830 section 10).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;

/// What the KMS does with one message.
pub type KmsHandler = Arc<dyn Fn(&[u8]) -> KmsResponse + Send + Sync>;

/// What the KMS says to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KmsResponse {
    /// A MIKEY message: the response, or a MIKEY Error.
    Message(Vec<u8>),
    /// The bytes are no MIKEY message that could be answered.
    Malformed,
}

/// The routes of the KMS's own listener.
pub fn router(handler: KmsHandler) -> Router {
    Router::new()
        .route("/keymanagement", post(key_management))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(handler)
}

#[derive(Deserialize)]
struct Parameters {
    requesttype: RequestType,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RequestType {
    TicketRequest,
    TicketResolve,
}

async fn key_management(
    State(handler): State<KmsHandler>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_mikey) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    // The message says itself what it asks for; a parameter that contradicts it is a mistake.
    let expected = match parameters.requesttype {
        RequestType::TicketRequest => REQUEST_INIT_TYPES,
        RequestType::TicketResolve => RESOLVE_INIT_TYPES,
    };
    if !body.get(1).is_some_and(|data_type| expected.contains(data_type)) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match handler(&body) {
        KmsResponse::Message(message) => {
            ([(header::CONTENT_TYPE, CONTENT_TYPE)], message).into_response()
        }
        KmsResponse::Malformed => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn is_mikey(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(CONTENT_TYPE)
}

const CONTENT_TYPE: &str = "application/mikey";
/// Payload lengths of MIKEY are 16 bits, and a message has one ticket; anything longer is refused
/// with 413 before it is read.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Data types REQUEST_INIT_PSK and REQUEST_INIT_PK (RFC 6043 section 6.1).
const REQUEST_INIT_TYPES: [u8; 2] = [11, 12];
/// Data types RESOLVE_INIT_PSK and RESOLVE_INIT_PK.
const RESOLVE_INIT_TYPES: [u8; 2] = [16, 17];
