//! `-args_file FILE`, as `erl` and releases have it (`vm.args`): further arguments from a file.
//!
//! Words are separated by white space; `"…"`, `'…'` and `\` quote; `#` begins a comment. Flags of the emulator (`+S 1:1`) mean
//! nothing here and are skipped with their values.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::exit::Failure;

/// Files that include files; a file that includes itself ends here.
const DEPTH: usize = 8;

/// More than any of these files needs.
const MAX_BYTES: u64 = 1 << 20;

/// Puts the words of each file in the place where it is named.
pub(crate) fn expand(arguments: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, Failure> {
    expand_to(arguments, DEPTH)
}

fn expand_to(mut arguments: impl Iterator<Item = OsString>, depth: usize) -> Result<Vec<OsString>, Failure> {
    let mut out = Vec::new();
    while let Some(argument) = arguments.next() {
        let file = match argument.to_str() {
            // What follows belongs to somebody else.
            Some("--") => {
                out.push(argument);
                out.extend(arguments);
                return Ok(out);
            }
            Some("-args_file" | "--args_file" | "--args-file") => arguments
                .next()
                .ok_or_else(|| Failure::Usage("-args_file needs the name of a file".to_owned()))?,
            Some(text) => match text.strip_prefix("--args-file=") {
                Some(file) => file.into(),
                None => {
                    out.push(argument);
                    continue;
                }
            },
            None => {
                out.push(argument);
                continue;
            }
        };
        let path = Path::new(&file);
        let why =
            |why: &dyn std::fmt::Display| Failure::Config(format!("-args_file {}: {why}", path.display()));
        let Some(depth) = depth.checked_sub(1) else {
            return Err(why(&"files include each other too deeply"));
        };
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
        if read.map_err(|error| why(&error))? as u64 > MAX_BYTES {
            return Err(why(&format!("longer than {MAX_BYTES} bytes")));
        }
        let words = words(&text).map_err(|error| why(&error))?;
        out.extend(expand_to(without_emulator_flags(words).into_iter().map(OsString::from), depth)?);
    }
    Ok(out)
}

/// The words of a file, with whether they are quoted.
fn words(text: &str) -> Result<Vec<(String, bool)>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<(String, bool)> = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '#' if word.is_none() => {
                // The comment, up to the end of the line.
                let _end = chars.by_ref().find(|char| *char == '\n');
            }
            '"' | '\'' => {
                let (word, quoted) = word.get_or_insert_default();
                *quoted = true;
                loop {
                    match chars.next().ok_or("a quote is not closed")? {
                        end if end == char => break,
                        '\\' if char == '"' => word.push(chars.next().ok_or("a quote is not closed")?),
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => match chars.next() {
                // A line that goes on.
                Some('\n') | None => {}
                Some(char) => word.get_or_insert_default().0.push(char),
            },
            char if char.is_whitespace() => words.extend(word.take()),
            char => word.get_or_insert_default().0.push(char),
        }
    }
    words.extend(word);
    Ok(words)
}

/// `+S 1:1` and its like go, up to the next flag.
fn without_emulator_flags(words: Vec<(String, bool)>) -> Vec<String> {
    let mut skipping = false;
    words
        .into_iter()
        .filter_map(|(word, quoted)| {
            if !quoted && word.starts_with('+') {
                skipping = true;
            } else if !quoted && word.starts_with('-') {
                skipping = false;
            }
            (!skipping).then_some(word)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        without_emulator_flags(words(text).unwrap())
    }

    #[test]
    fn words_are_split_as_erlexec_does() {
        let text = "## Name of the node\n-name \"my app\"@127.0.0.1 # not this\n-setcookie 'a\\b' \n+P 1048576 +zdbbl 32768\n\
                    -kernel net_ticktime 8 \\\n -hidden";
        assert_eq!(
            split(text),
            ["-name", "my app@127.0.0.1", "-setcookie", "a\\b", "-kernel", "net_ticktime", "8", "-hidden"]
        );
        assert_eq!(split("a#b \"\" '-x y'"), ["a#b", "", "-x y"]);
        assert!(words("-name \"open").is_err());
    }

    #[test]
    fn a_file_stands_where_it_is_named_and_does_not_include_itself_for_ever() {
        let directory = std::env::temp_dir().join(format!("foundation-args-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (plain, endless) = (directory.join("vm.args"), directory.join("endless"));
        std::fs::write(&plain, "-sname app\n").unwrap();
        std::fs::write(&endless, format!("-args_file {}", endless.display())).unwrap();
        let expand = |words: &[&str]| super::expand(words.iter().map(OsString::from));
        let plain = plain.to_str().unwrap();
        assert_eq!(expand(&["f", "-args_file", plain, "start"]).unwrap(), ["f", "-sname", "app", "start"]);
        assert_eq!(expand(&["f", "--", "-args_file", plain]).unwrap(), ["f", "--", "-args_file", plain]);
        assert!(matches!(expand(&["-args_file", endless.to_str().unwrap()]), Err(Failure::Config(_))));
        assert!(matches!(expand(&["-args_file"]), Err(Failure::Usage(_))));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
