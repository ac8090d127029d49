//! Which seeds are run, and how one that fails is run again.

/// Runs the seeds that the environment asks for; says how to replay those that fail.
pub fn for_each_seed(count: u64, test: &str, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse().expect(name));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(count),
    };
    let fails = |seed: &u64| {
        let failed = std::panic::catch_unwind(|| run(*seed)).is_err();
        if failed {
            eprintln!("replay with: SEED={seed} cargo test -p mrfp-core {test}");
        }
        failed
    };
    let failed = seeds.filter(fails).count();
    assert_eq!(failed, 0, "seeds that failed");
}
