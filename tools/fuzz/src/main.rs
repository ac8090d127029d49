//! What libFuzzer drives; `cargo xtask fuzz` builds it with coverage and runs it. MRF_FUZZ_TARGET names
//! the target, MRF_FUZZ_SEEDS the directory its seeds are written to; with MRF_FUZZ_LIST it only says
//! which targets there are.
#![no_main]

use std::sync::OnceLock;

use fuzz::Target;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("MRF_FUZZ_TARGET").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| panic!("no target {name:?}"))
    })
}

fn prepare() {
    if std::env::var_os("MRF_FUZZ_LIST").is_some() {
        fuzz::TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    }
    let Some(directory) = std::env::var_os("MRF_FUZZ_SEEDS") else { return };
    for (index, seed) in (target().seeds)().iter().enumerate() {
        let path = std::path::Path::new(&directory).join(format!("seed-{index:02}"));
        std::fs::write(path, seed).expect("the seeds can be written");
    }
}

fuzz_target!(init: prepare(), |bytes: &[u8]| {
    (target().run)(bytes);
});

// Half of the changes leave a message a message.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // Spread, so that neighbouring seeds differ in more than a bit.
    let spread = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if let Some(mutate) = target().mutate
        && spread >> 63 == 0
        && let Some(changed) = mutate(&data[..size], spread)
        && changed.len() <= max_size.min(data.len())
    {
        data[..changed.len()].copy_from_slice(&changed);
        return changed.len();
    }
    fuzzer_mutate(data, size, max_size)
});
