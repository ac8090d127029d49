//! Our client against our server, in memory: every suite, data both ways.

mod tls_common;

use tls_common::{TLS13, all_suites, establish, profile, transfer};

#[test]
fn carries_data_both_ways_for_every_suite() {
    for suite in all_suites() {
        let profile = profile(suite);
        let (mut client, mut server) = establish(&profile, &profile);
        if suite != TLS13 {
            assert_eq!(client.suite(), suite);
        }
        assert_eq!(client.suite(), server.suite());
        for size in [1, 2, 15, 16, 17, 255, 4096, 16 * 1024 - 1, 16 * 1024, 1] {
            let plaintext = vec![b'x'; size];
            transfer(&mut client, &mut server, &plaintext);
            transfer(&mut server, &mut client, &plaintext);
            transfer(&mut server, &mut client, &plaintext);
        }
    }
}
