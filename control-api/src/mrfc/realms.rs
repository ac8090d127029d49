//! Which network a call comes from.

use std::fmt;
use std::net::IpAddr;

use mrfp_core::mp::RealmId;

/// An address and how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// The realms of the operator, the one for everybody else first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Realms {
    names: Vec<String>,
    /// Smallest networks first.
    networks: Vec<(Network, RealmId)>,
}

impl Network {
    /// `None`: more bits than the address has, or one set beyond them.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let network = Self { address, bits };
        (bits <= bits_max && network.prefix_of(address) == Some(as_number(address)))
            .then_some(network)
    }

    /// An address of IPv4 counts as such when it is written as one of IPv6, too.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefix_of(address.to_canonical()) == Some(as_number(self.address))
    }

    /// The address with everything struck out that does not count; `None`: of the other family.
    fn prefix_of(&self, address: IpAddr) -> Option<u128> {
        let width = if self.address.is_ipv4() { 32 } else { 128 };
        let dropped = width - u32::from(self.bits).min(width);
        let mask = u128::MAX.checked_shl(dropped).unwrap_or(0);
        (address.is_ipv4() == self.address.is_ipv4()).then(|| as_number(address) & mask)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Realms {
    /// Names and networks, in the order of their numbers from 1 on.
    ///
    /// # Panics
    /// If there are more than a [`RealmId`] can tell apart.
    pub fn new(realms: impl IntoIterator<Item = (String, Vec<Network>)>) -> Self {
        let mut names = vec![REALM_DEFAULT.to_owned()];
        let mut networks = Vec::new();
        for (name, of_realm) in realms {
            let id = RealmId(u16::try_from(names.len()).expect("few realms"));
            names.push(name);
            networks.extend(of_realm.into_iter().map(|network| (network, id)));
        }
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.bits));
        Self { names, networks }
    }

    /// The realm of whoever's SIP comes from this address.
    #[must_use]
    pub fn of(&self, source: IpAddr) -> RealmId {
        let realm = self.networks.iter().find(|(network, _)| network.contains(source));
        realm.map_or(RealmId::default(), |(_, id)| *id)
    }

    /// Names by number.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Default for Realms {
    fn default() -> Self {
        Self::new([])
    }
}

fn as_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Name of the realm of everybody who belongs to no other.
pub const REALM_DEFAULT: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/')?;
        Network::new(address.parse().ok()?, bits.parse().ok()?)
    }

    fn realm(realms: &Realms, source: &str) -> u16 {
        realms.of(source.parse().expect("an address")).0
    }

    #[test]
    fn a_network_has_no_bits_beyond_its_length() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "::1/128"]
        {
            assert_eq!(network(text).map(|network| network.to_string()), Some(text.to_owned()));
        }
        for text in ["10.0.0.1/8", "10.0.0.0/33", "2001:db8::1/32", "::/129"] {
            assert_eq!(network(text), None, "{text}");
        }
    }

    #[test]
    fn the_smallest_network_around_an_address_wins() {
        let networks = |texts: &[&str]| texts.iter().map(|text| network(text).unwrap()).collect();
        let realms = Realms::new([
            ("core".to_owned(), networks(&["10.0.0.0/8", "2001:db8::/32"])),
            ("access".to_owned(), networks(&["10.1.0.0/16", "10.2.3.4/32"])),
        ]);
        let table = [
            ("10.9.9.9", 1),
            ("10.1.2.3", 2),
            ("10.2.3.4", 2),
            ("10.2.3.5", 1),
            ("::ffff:10.1.2.3", 2),
            ("2001:db8:1::1", 1),
            ("2001:db9::1", 0),
            ("192.0.2.1", 0),
        ];
        for (source, expected) in table {
            assert_eq!(realm(&realms, source), expected, "{source}");
        }
        assert_eq!(realms.names(), ["default", "core", "access"]);
        assert_eq!(realm(&Realms::default(), "10.1.2.3"), 0);
    }
}
