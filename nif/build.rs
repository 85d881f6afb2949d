//! Tells the library which cargo profile it is built with: `PROFILE` is `release` for every profile that inherits from it.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let inherited = std::env::var("PROFILE").unwrap_or_default();
    // TARGET/PROFILE/build/PACKAGE/out
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    let above = Path::new(&out).ancestors().find(|path| path.ends_with("build")).and_then(Path::parent);
    let profile = above.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(&inherited);
    println!("cargo::rustc-env=FOUNDATION_NIF_PROFILE={profile}");
}
