//! The corpus and the seeds, once each: what fuzzing has found stays found.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&directory).expect("every target has a corpus");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        (path, bytes)
    };
    entries.map(read).collect()
}

#[test]
fn no_input_of_the_corpus_fails() {
    for target in fuzz::TARGETS {
        let inputs = inputs(target.name);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (path, bytes) in inputs {
            // The name of what fails is the last line of the output.
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

/// Otherwise nothing would be fuzzed but the refusal of what nobody would send.
#[test]
fn every_seed_is_taken() {
    for target in fuzz::TARGETS {
        for (index, seed) in (target.seeds)().iter().enumerate() {
            assert!((target.run)(seed), "seed {index} of {}", target.name);
        }
    }
}
