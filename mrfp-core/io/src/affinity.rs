//! One core for one thread.

pub use core_affinity::CoreId as Core;

/// The cores this process may run on, in ascending order; respects `taskset`, cpusets and
/// containers. Empty if the kernel does not say.
#[must_use]
pub fn available_cores() -> Vec<Core> {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.sort();
    cores
}

/// Binds the calling thread to a core. `false`: the kernel refused, the thread runs on anyway.
#[must_use]
pub fn pin_current_thread(core: Core) -> bool {
    core_affinity::set_for_current(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_a_thread_to_one_of_the_available_cores() {
        let cores = available_cores();
        assert!(!cores.is_empty());
        let core = *cores.last().unwrap();
        let left = std::thread::spawn(move || {
            assert!(pin_current_thread(core));
            available_cores()
        });
        assert_eq!(left.join().unwrap(), [core]);
        assert_eq!(available_cores(), cores);
    }
}
