//! Transactions of a call: each is kept by a task of its own, which tells the call what happens.

use std::sync::Arc;

use rsipstack::sip::{Header, Headers, Method, Request, Response, SipMessage, StatusCode};
use rsipstack::transaction::endpoint::EndpointInnerRef;
use rsipstack::transaction::transaction::{Transaction, TransactionEvent, TransactionEventSender};
use rsipstack::transport::SipConnection;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout_at};

use super::call::{Input, contact};
use super::headers::cross;
use super::side::{Side, transport_of};

/// A request that waits for our answer.
pub(super) struct Server {
    pub(super) request: Request,
    pub(super) connection: Option<SipConnection>,
    endpoint: EndpointInnerRef,
    sender: TransactionEventSender,
    answered: bool,
}

impl Server {
    /// Of a transaction whose task the caller starts.
    pub(super) fn new(transaction: &Transaction) -> Self {
        Self {
            request: transaction.original.clone(),
            connection: transaction.connection.clone(),
            endpoint: transaction.endpoint_inner.clone(),
            sender: transaction.tu_sender.clone(),
            answered: false,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// A response with what every response to the request has. `tag` goes into a To without one.
    pub(super) fn response(&self, status: StatusCode, tag: Option<&str>) -> Response {
        let mut response = self.endpoint.make_response(&self.request, status, None);
        if let Some(tag) = tag {
            for header in response.headers.iter_mut() {
                if let Header::To(to) = header
                    && !crate::sip::wire::has_tag(to.value().as_bytes())
                {
                    *to = format!("{};tag={tag}", to.value()).into();
                }
            }
        }
        response
    }

    /// Sends a response; a second final one is none.
    pub(super) fn respond(&mut self, response: Response) {
        if self.answered {
            return;
        }
        self.answered = response.status_code.code() >= 200;
        // The task ends after a final response only, so it is there.
        let _ = self.sender.send(TransactionEvent::Respond(response));
    }

    /// The same without a body.
    pub(super) fn refuse(&mut self, status: u16, tag: &str, headers: Vec<Header>) {
        let mut response = self.response(StatusCode::from(status), Some(tag));
        response.headers.extend(headers);
        self.respond(response);
    }
}

impl Server {
    /// A response of `asked` as `asker`, whose request this is, gets it.
    pub(super) fn passed(
        &self,
        response: &Response,
        asked: &Side,
        asker: &Side,
        tag: Option<&str>,
    ) -> Response {
        let status = match &response.wire_reason {
            // The stack writes the phrase of the RFC for what it knows.
            Some(reason) => StatusCode::Other(response.status_code.code(), reason.clone()),
            None => response.status_code.clone(),
        };
        let mut passed = self.response(status, tag);
        passed.headers.extend(cross(&response.headers, asked, asker));
        let targets = response.headers.iter().filter(|it| matches!(it, Header::Contact(_)));
        if (300..400).contains(&response.status_code.code()) {
            passed.headers.extend(targets.cloned().collect());
        } else if targets.count() > 0 {
            let uri = asker.contact_uri("", transport_of(&self.request));
            passed.headers.push(contact(&uri, &response.headers));
        }
        set_body(&mut passed.headers, &mut passed.body, response.body.clone());
        passed
    }
}

/// A panic of the call must not leave the peer without an answer, nor the transaction open for ever.
impl Drop for Server {
    fn drop(&mut self) {
        if !self.answered {
            self.refuse(500, "dropped", Vec::new());
        }
    }
}

/// Sets the body of a response; the stack counts only those of requests.
pub(super) fn set_body(headers: &mut Headers, target: &mut Vec<u8>, body: Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    headers.unique_push(Header::ContentLength(length.into()));
    *target = body;
}

/// Keeps a transaction with a request of the peer.
pub(super) fn keep_server(
    side: &Side,
    mut transaction: Transaction,
    number: u32,
    inbox: UnboundedSender<Input>,
) {
    // A response that a broken connection does not take leaves the transaction as it was, without a timer.
    let until = Instant::now() + side.shared.config.unanswered_max + side.config.t1 * 128;
    side.spawn(async move {
        while let Ok(Some(message)) = timeout_at(until, transaction.receive()).await {
            let SipMessage::Request(request) = message else { continue };
            // A call that is over needs neither.
            let _ = match request.method {
                Method::Ack => inbox.send(Input::Ack { server: number, request }),
                Method::Cancel => inbox.send(Input::Cancel { server: number, request }),
                _ => Ok(()),
            };
        }
        let _ = inbox.send(Input::ServerGone { server: number });
    });
}

/// Sends a request of ours and keeps its transaction.
pub(super) fn keep_client(
    side: &Arc<Side>,
    mut transaction: Transaction,
    number: u32,
    inbox: UnboundedSender<Input>,
) {
    side.spawn(async move {
        if transaction.send().await.is_ok() {
            while let Some(message) = transaction.receive().await {
                if let SipMessage::Response(response) = message {
                    let _ = inbox.send(Input::Response { client: number, response });
                }
            }
        }
        let _ = inbox.send(Input::ClientGone { client: number });
    });
}
