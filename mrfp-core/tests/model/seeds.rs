//! Which seeds are run, and how one that fails is run again.

/// Runs the seeds that the environment asks for; says how to replay those that fail.
pub fn for_each_seed(count: u64, test: &str, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse().expect(name));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(count),
    };
    let failed: Vec<u64> =
        seeds.filter(|&seed| std::panic::catch_unwind(|| run(seed)).is_err()).collect();
    for seed in &failed {
        eprintln!("replay with: SEED={seed} cargo test -p mrfp-core {test}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}
