//! Connections from their beginning to their end.

use mrfp_io::{Driver as _, Errno, Key, Operation, RecvBuffer, SendBuffer, Token};

use super::{BIND_TIMEOUT_NS, Connect, Event, Worker};
use crate::expectation::Violation;
use crate::media::channel::{Failure, describe};
use crate::media::connection::{Beginning, Connection, FileSender, Stage};
use crate::media::message::{Author, Content, Template};

impl Worker {
    pub(super) fn connect(&mut self, connect: Connect) {
        // A run of calls has no end of them; their connections follow each other in the same slots.
        let reused = self.free.pop();
        let index = reused.unwrap_or(self.connections.len() as u32);
        let token = Token::new(Operation::Connect, key(index));
        let socket = match connect.source {
            None => self.driver.connect(connect.address, token),
            Some(source) => self.driver.connect_from(source, connect.address, token),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                self.shared.violations.add(Violation::ConnectFailed, || {
                    format!("session {}: {}: {error}", connect.session, connect.address)
                });
                self.free.extend(reused);
                return (self.shared.events)(Event::Failed { session: connect.session });
            }
        };
        let room = self.shared.room(connect.room);
        let members = &mut self.shared.rooms[room as usize].members;
        let first = members.is_empty();
        members.push(index);
        let session = connect.session as usize;
        if self.by_session.len() <= session {
            self.by_session.resize(session + 1, super::NONE);
        }
        self.by_session[session] = index;
        let nonce = nonce();
        let author = Author {
            session: connect.session,
            nonce,
            from: &connect.from,
            to: &connect.to,
            local_path: &connect.local_path,
            remote_path: &connect.remote_path,
            date_time: &self.shared.date_time,
        };
        let text_bytes = self.shared.traffic.texts.of(connect.session);
        let template = Template::new(&author, Content::Text, text_bytes);
        let sends_files = match self.shared.traffic.stall {
            None => first,
            Some(_) => connect.session == 0,
        };
        let files = self.shared.traffic.files.filter(|_| sends_files);
        let file = files.map(|files| FileSender {
            template: Template::new(&author, Content::File, files.bytes)
                .in_chunks_of(files.chunk_bytes),
            begun: 0,
            sending: None,
        });
        let (handshake, failure) = match self.shared.handshake(connect.protection, connect.address)
        {
            Ok(handshake) => (handshake, None),
            Err(error) => (None, Some(Failure::Handshake(error))),
        };
        let connection = Connection::new(Beginning {
            session: connect.session,
            room,
            socket,
            handshake,
            template,
            file,
            waits: self.shared.traffic.burst,
            speaks_once: self.shared.traffic.speaks_once,
            local_path: connect.local_path,
            nonce,
            bind_deadline_ns: self.shared.now() + BIND_TIMEOUT_NS,
        });
        match self.connections.get_mut(index as usize) {
            Some(slot) => *slot = connection,
            None => self.connections.push(connection),
        }
        if let Some(failure) = failure {
            self.fail(index, &failure);
        }
    }

    pub(super) fn connected(&mut self, token: Token, result: Result<(), Errno>) {
        let index = token.key().index;
        let connection = &mut self.connections[index as usize];
        match (connection.stage, result) {
            (Stage::Connecting, Ok(())) => {
                let mut with = self.shared.surroundings();
                let outcome = connection.connected(&mut with);
                self.shared.dirty.insert(index);
                self.arm(index);
                self.heard(index);
                if let Err(failure) = outcome {
                    self.fail(index, &failure);
                }
            }
            (Stage::Connecting, Err(errno)) => {
                let session = connection.session;
                let released = connection.released;
                connection.stage = Stage::Binding;
                if !released {
                    self.shared.violations.add(Violation::ConnectFailed, || {
                        format!("session {session}: {}", describe(errno))
                    });
                    (self.shared.events)(Event::Failed { session });
                }
                self.close(index, None);
            }
            (_, _) => self.try_free(index),
        }
    }

    pub(super) fn received(
        &mut self,
        token: Token,
        result: Result<Option<RecvBuffer>, Errno>,
        more: bool,
    ) {
        let index = token.key().index;
        let connection = &mut self.connections[index as usize];
        connection.recv_armed = more;
        let closing = connection.stage >= Stage::Closing;
        match result {
            Ok(Some(buffer)) => {
                let outcome = if closing {
                    Ok(())
                } else {
                    let bytes = self.driver.recv_bytes(&buffer);
                    connection.receive(bytes, &mut self.shared.surroundings())
                };
                self.driver.recv_release(buffer);
                if closing {
                    return self.try_free(index);
                }
                self.shared.dirty.insert(index);
                self.heard(index);
                match outcome {
                    Ok(()) if !more => self.rearm.push(index),
                    Ok(()) => {}
                    Err(failure) => self.fail(index, &failure),
                }
            }
            _ if closing => self.try_free(index),
            Ok(None) => self.peer_closed(index, "end of stream"),
            Err(Errno::NO_BUFFERS) if !more => self.rearm.push(index),
            Err(Errno::CANCELED) if connection.stalled => {}
            Err(errno) => self.peer_closed(index, &describe(errno)),
        }
    }

    pub(super) fn sent(&mut self, token: Token, result: Result<usize, Errno>, buffer: SendBuffer) {
        let index = token.key().index;
        let connection = &mut self.connections[index as usize];
        let count = result.unwrap_or(0);
        connection.channel.egress.completed(buffer, count, &mut self.shared.pool);
        if connection.stage >= Stage::Closing {
            if result.is_err() {
                connection.channel.egress.discard(&mut self.shared.pool);
            }
            self.shared.dirty.insert(index);
            return self.try_free(index);
        }
        match result {
            Ok(_) => {
                self.shared.dirty.insert(index);
                self.shared.ready.insert(index);
            }
            Err(errno) => self.peer_closed(index, &describe(errno)),
        }
    }

    pub(super) fn flush(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.stage == Stage::Closed {
            return;
        }
        let socket = connection.socket;
        let token = Token::new(Operation::Send, key(index));
        match connection.channel.send_waiting(&mut self.driver, socket, token) {
            Ok(0) => self.try_free(index),
            Ok(_) => {}
            Err(failure) => self.fail(index, &failure),
        }
    }

    pub(super) fn peer_closed(&mut self, index: u32, how: &str) {
        if self.connections[index as usize].released {
            return self.close(index, None);
        }
        self.lose(index, Violation::UnexpectedClose, how, None);
    }

    /// The session is lost through the node's (or the generator's) fault.
    pub(super) fn fail(&mut self, index: u32, failure: &Failure) {
        let Some((violation, text)) = failure.verdict() else {
            return self.peer_closed(index, "close_notify");
        };
        self.lose(index, violation, &text, Some(failure));
    }

    pub(super) fn lose(
        &mut self,
        index: u32,
        violation: Violation,
        text: &str,
        failure: Option<&Failure>,
    ) {
        let connection = &self.connections[index as usize];
        if connection.stage >= Stage::Closing {
            return;
        }
        let session = connection.session;
        self.violation(index, violation, text);
        (self.shared.events)(Event::Failed { session });
        self.close(index, failure);
    }

    pub(super) fn close(&mut self, index: u32, failure: Option<&Failure>) {
        let connection = &mut self.connections[index as usize];
        if connection.stage >= Stage::Closing {
            return;
        }
        let connecting = connection.stage == Stage::Connecting;
        let was_member = connection.stage == Stage::Bound
            || connection.waits && connection.stage >= Stage::Binding;
        connection.sending = None;
        connection.file = None;
        connection.channel.end(failure, &mut self.shared.pool);
        connection.stage = Stage::Closing;
        if connecting {
            self.driver.cancel(Token::new(Operation::Connect, key(index)));
        } else {
            self.flush(index);
            let connection = &mut self.connections[index as usize];
            if connection.recv_armed && connection.channel.egress.is_empty() {
                self.driver.shutdown(connection.socket);
            }
        }
        let connection = &self.connections[index as usize];
        let room = &mut self.shared.rooms[connection.room as usize];
        if let (true, Some(ledger)) = (was_member, &mut room.ledger) {
            ledger.left(connection.member);
            room.files.left(connection.member);
            for other in &room.members {
                self.shared.ready.insert(*other);
            }
        }
        if !connecting {
            self.try_free(index);
        }
    }

    /// Frees the descriptor of a closing connection once nothing of it is with the kernel.
    pub(super) fn try_free(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.stage != Stage::Closing || connection.channel.egress.in_flight() {
            return;
        }
        if !connection.channel.egress.is_empty() {
            return self.shared.dirty.insert(index);
        }
        if connection.recv_armed {
            return self.driver.shutdown(connection.socket);
        }
        // `Closed` already: no operation may follow. The completion finds it so.
        connection.stage = Stage::Closed;
        let token = Token::new(Operation::Close, key(index));
        self.driver.close(connection.socket, token);
    }

    pub(super) fn arm(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let wanted = connection.stage < Stage::Closing && !connection.stalled;
        if wanted && !connection.recv_armed {
            connection.recv_armed = true;
            let token = Token::new(Operation::Recv, key(index));
            self.driver.recv(connection.socket, token);
        }
    }
}

/// A slot has its next connection only after the close of the one before: no late completion can
/// come.
fn key(index: u32) -> Key {
    Key { index, generation: 1 }
}

fn nonce() -> u32 {
    // An identifier that can be guessed would do no harm here; the clock serves where the system
    // has no randomness.
    getrandom::u32().unwrap_or_else(|_| {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        elapsed.map_or(0, |elapsed| elapsed.subsec_nanos())
    })
}
