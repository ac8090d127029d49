//! Telling the service manager how far we are (sd_notify(3)), where there is one that listens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// We are ready.
pub const READY: &str = "READY=1";
/// We are about to stop.
pub const STOPPING: &str = "STOPPING=1";

/// Tells the service manager, if it has named a socket for that.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // A name that begins with @ is of the abstract namespace.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_at_the_socket_that_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("binds");
        send(path.as_os_str(), READY).expect("sent");
        let name = format!("mrf-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let hidden = UnixDatagram::bind_addr(&address).expect("binds");
        send(OsStr::new(&format!("@{name}")), STOPPING).expect("sent");
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], READY.as_bytes());
        let length = hidden.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], STOPPING.as_bytes());
    }
}
