//! What is counted, by callgrind's `--toggle-collect=instructions::counted::*`: entering one of these
//! functions turns counting on, leaving it turns it off. Hence no closures, and no calls among them.
//! [`from_here`] is `--zero-before`: what went before does not count.

use std::hint::black_box;

use mrfp_core::Shard;
use mrfp_protocol::cpim;
use mrfp_protocol::msrp::{Framer, Piece};
use mrfp_protocol::tls::{Opened, Session};

use crate::boundary::Boundary;

/// The warm-up is over.
#[inline(never)]
pub(crate) fn from_here() {
    black_box(());
}

/// A turn of a shard. Its driver is not counted.
#[inline(never)]
pub(crate) fn turn(shard: &mut Shard<Boundary>) {
    assert!(shard.turn().expect("a turn"));
}

/// Cuts a segment into messages; how many ended.
#[inline(never)]
pub(crate) fn cut(framer: &mut Framer, segment: &[u8]) -> usize {
    let mut ended = 0;
    let mut rest = segment;
    let mut piece = Piece::default();
    loop {
        match framer.read(rest, None, &mut piece) {
            Ok(true) => {
                ended += usize::from(piece.end.is_some());
                rest = &rest[piece.consumed..];
            }
            Ok(false) => return ended,
            Err(malformed) => panic!("{malformed:?}"),
        }
    }
}

/// Reads a CPIM head; where the content begins.
#[inline(never)]
pub(crate) fn read_head(body: &[u8]) -> usize {
    match cpim::Head::parse(body) {
        Ok(Some((_, content))) => content,
        other => panic!("{other:?}"),
    }
}

/// Seals a record in place and opens it at the other end; bytes of its plaintext.
#[inline(never)]
pub(crate) fn seal_and_open(
    from: &mut Session,
    to: &mut Session,
    memory: &mut [u8],
    plaintext: std::ops::Range<usize>,
) -> usize {
    let sealed = from.seal(memory, plaintext).expect("sealed");
    match to.open(&mut memory[sealed]) {
        Ok(Opened::Data { plaintext, .. }) => plaintext.len(),
        other => panic!("{other:?}"),
    }
}
