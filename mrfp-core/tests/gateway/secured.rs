//! TLS that ends at the gateway, in both roles of TCP and of TLS.

use mrfp_core::mp::{Establishment, TlsRole};

use crate::world::Gateway;

#[test]
fn converts_between_tls_and_plain_text_in_every_role() {
    for establishment in [Establishment::Incoming, Establishment::AtOnce] {
        for role in [TlsRole::Server, TlsRole::Client] {
            for mut gateway in [Gateway::calm()].into_iter().chain((0..5).map(Gateway::faulty)) {
                let (mut a, mut b) = gateway.secured_pair(establishment, role);
                assert!(a.is_secured());
                a.send(&mut gateway, b"from the UE");
                b.send(&mut gateway, b"from the core");
                gateway.work(&mut [&mut a, &mut b]);
                assert_eq!(a.received, b"from the core");
                assert_eq!(b.received, b"from the UE");
                gateway.subtract_both();
            }
        }
    }
}
