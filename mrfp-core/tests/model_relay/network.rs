//! Two relays, each on a simulated network of its own, and the wires between them.

use mrfp_core::{Limits, RelayConfig};
use mrfp_io::{ConnectAnswer, PeerId, Simulator, SimulatorConfig};

use crate::common::{Ue, World};
use crate::random::Random;
use crate::world::{answer, config, world_with};

/// Both relays. Each has an address as its name, so that the other finds it.
pub struct Network {
    pub worlds: Vec<World>,
    wires: Vec<Wire>,
    /// Connections to the peer outside, with the relay that has made them.
    pub outside: Vec<(usize, Ue)>,
    /// A connection between the relays has been cut.
    pub cut: bool,
}

/// A connection that one relay has made to the other.
struct Wire {
    from: usize,
    near: PeerId,
    far: PeerId,
    cut: bool,
}

/// Names of the relays.
pub const HOSTS: [&str; 2] = ["192.0.2.251", "192.0.2.252"];
/// Listens, and is outside of both.
const OUTSIDE: &str = "192.0.2.200:7000";
/// Refuses connections.
pub const DEAD: &str = "192.0.2.201:7000";
/// Neither refuses nor accepts them.
pub const SILENT: &str = "192.0.2.202:7000";
const PORTS: [&str; 2] = ["2856", "2900"];

impl Network {
    pub fn new(seed: u64, random: &mut Random, limits: Limits) -> Self {
        let calm = random.once_in(3);
        let world = |number: usize| {
            let simulator = if calm {
                Simulator::without_faults()
            } else {
                let config = SimulatorConfig { recv_buffer_count: 8, ..SimulatorConfig::default() };
                Simulator::with_config(seed * 2 + number as u64, config)
            };
            let config = RelayConfig { host: HOSTS[number].to_owned(), ..config() };
            let mut world = world_with(simulator, limits, config);
            for port in PORTS {
                let other = format!("{}:{port}", HOSTS[1 - number]);
                answer(&mut world, &other, ConnectAnswer::Accept);
            }
            answer(&mut world, OUTSIDE, ConnectAnswer::Accept);
            answer(&mut world, DEAD, ConnectAnswer::Refuse);
            answer(&mut world, SILENT, ConnectAnswer::Silence);
            world
        };
        Self {
            worlds: vec![world(0), world(1)],
            wires: Vec::new(),
            outside: Vec::new(),
            cut: false,
        }
    }

    /// One turn of both, and of what lies between them.
    pub fn turn(&mut self, step_ns: u64) {
        for world in &mut self.worlds {
            world.shard.driver_mut().advance_ns(step_ns);
            assert!(world.shard.turn().unwrap());
            world.take_events();
        }
        self.carry();
    }

    /// Until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            self.worlds.iter_mut().for_each(World::settle);
            if !self.carry() {
                return;
            }
        }
        panic!("the relays do not come to rest");
    }

    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.turn(100_000_000);
        }
        self.settle();
    }

    /// The connections between the relays break.
    pub fn cut(&mut self) {
        for wire in self.wires.iter_mut().filter(|wire| !wire.cut) {
            wire.cut = true;
            self.cut = true;
            self.worlds[wire.from].shard.driver_mut().peer_reset(wire.near);
            self.worlds[1 - wire.from].shard.driver_mut().peer_reset(wire.far);
        }
    }

    /// Moves bytes between the relays, and connects what they have connected. Whether anything
    /// moved.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        for from in 0..2 {
            while let Some(near) = self.worlds[from].shard.driver_mut().next_connected() {
                moved = true;
                let address = self.worlds[from].shard.driver_mut().peer_address(near);
                if address.to_string() == OUTSIDE {
                    let ue = self.worlds[from].ue(0, address, None, near);
                    self.outside.push((from, ue));
                    continue;
                }
                let port = address.port();
                let listener = format!("127.0.0.1:{port}").parse().unwrap();
                let far = self.worlds[1 - from].shard.driver_mut().peer_connect(listener);
                self.wires.push(Wire { from, near, far, cut: false });
            }
        }
        for wire in self.wires.iter_mut().filter(|wire| !wire.cut) {
            let (from, to) = (wire.from, 1 - wire.from);
            let bytes = self.worlds[from].shard.driver_mut().peer_received(wire.near);
            moved |= !bytes.is_empty();
            self.worlds[to].shard.driver_mut().peer_send(wire.far, &bytes);
            let bytes = self.worlds[to].shard.driver_mut().peer_received(wire.far);
            moved |= !bytes.is_empty();
            self.worlds[from].shard.driver_mut().peer_send(wire.near, &bytes);
            let ended = [(from, wire.near), (to, wire.far)]
                .map(|(number, peer)| self.worlds[number].shard.driver_mut().peer_saw_end(peer));
            if ended[0] || ended[1] {
                wire.cut = true;
                self.cut = true;
                moved = true;
                self.worlds[from].shard.driver_mut().peer_close(wire.near);
                self.worlds[to].shard.driver_mut().peer_close(wire.far);
            }
        }
        moved
    }
}
