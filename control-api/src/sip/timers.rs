//! The stack's timers. The stack has a loop of its own for them
//! (`EndpointInner::process_timer`), which looks at every INVITE that waits for its ACK whenever a
//! transaction is forgotten: callers that never send one would make that quadratic. This one finds
//! the entry by its key.

use rsipstack::dialog::DialogId;
use rsipstack::sip::{Response, SipMessage};
use rsipstack::transaction::TransactionTimer;
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::TransactionEvent;

use super::station::Station;

impl Station {
    /// Gives each timer that has run out to its transaction.
    pub(crate) async fn run_timers(&self) {
        loop {
            for timer in self.endpoint.timers.wait_for_ready().await {
                match timer {
                    TransactionTimer::TimerCleanup(key) => self.forget_transaction(&key),
                    timer => self.notify_transaction(timer),
                }
            }
        }
    }

    fn notify_transaction(&self, timer: TransactionTimer) {
        let key = timer.key().clone();
        let transaction = self.endpoint.transactions.get(&key);
        let gone =
            transaction.is_some_and(|sender| sender.send(TransactionEvent::Timer(timer)).is_err());
        if gone {
            self.endpoint.detach_transaction(&key, None);
        }
    }

    /// The time for repeated requests and late ACKs is over.
    fn forget_transaction(&self, key: &TransactionKey) {
        self.endpoint.transactions.remove(key);
        let last = self.endpoint.finished_transactions.remove(key).flatten();
        // Only a refusal without ACK has still an entry here: it is keyed by the dialog that the
        // refusal would have been in.
        if let Some(SipMessage::Response(response)) = last
            && let Some(dialog) = dialog_of(&response)
            && self.endpoint.waiting_ack.get(&dialog).as_ref() == Some(key)
        {
            self.endpoint.waiting_ack.remove(&dialog);
        }
    }
}

fn dialog_of(response: &Response) -> Option<DialogId> {
    DialogId::try_from((response, TransactionRole::Server)).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::net::UdpSocket;
    use tokio::sync::mpsc;

    use crate::sip::{SipConfig, start};

    #[tokio::test]
    async fn refusals_without_ack_are_forgotten() {
        const REFUSALS: usize = 20;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let t1 = Duration::from_millis(2);
        let config = SipConfig { udp: any, tcp: any, t1, ..SipConfig::default() };
        let (events, _events) = mpsc::channel(1);
        let sip = start(config, events).await.expect("starts");
        let socket = UdpSocket::bind(any).await.expect("binds");
        let local = socket.local_addr().expect("bound");
        for number in 0..REFUSALS {
            // 422: the interval is below the minimum.
            let invite = format!(
                "INVITE sip:room@node SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{number}\
                 \r\nFrom: <sip:a@b>;tag={number}\r\nTo: <sip:room@node>\r\nCall-ID: c{number}\r\n\
                 CSeq: 1 INVITE\r\nContact: <sip:a@{local}>\r\nSupported: timer\r\n\
                 Session-Expires: 1\r\nContent-Length: 0\r\n\r\n"
            );
            socket.send_to(invite.as_bytes(), sip.udp_address()).await.expect("sent");
        }
        let endpoint = &sip.agent.endpoint;
        let refused = || sip.agent.metrics.answers_4xx.get();
        while refused() < REFUSALS as u64
            || !endpoint.transactions.is_empty()
            || !endpoint.finished_transactions.is_empty()
        {
            tokio::time::sleep(t1).await;
        }
        assert_eq!(refused(), REFUSALS as u64);
        assert!(endpoint.waiting_ack.is_empty());
    }
}
