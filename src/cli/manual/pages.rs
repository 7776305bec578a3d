//! A page of the manual for each verb; those of rcrun itself and of the shim are written by hand, in docs/man.
//! Uses: tree, args, clap_mangen.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::flags::{VERBS, Verb};
use crate::args::image;
use crate::tree;

/// Written by hand.
const BY_HAND: [(&str, &str); 2] = [
    ("rcrun.8", include_str!("../../../docs/man/rcrun.8")),
    ("containerd-shim-rcrun-v2.8", include_str!("../../../docs/man/containerd-shim-rcrun-v2.8")),
];

/// The names of all pages, and their texts.
pub fn all() -> io::Result<Vec<(String, String)>> {
    let mut pages: Vec<_> = BY_HAND.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    for verb in verbs() {
        pages.push((format!("{}.8", dashed(verb)), page(verb)?));
    }
    Ok(pages)
}

fn verbs() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().chain(image::VERBS)
}

fn dashed(verb: &Verb) -> String {
    format!("rcrun-{}", verb.name.replace(' ', "-"))
}

fn page(verb: &Verb) -> io::Result<String> {
    let name = dashed(verb);
    let called = format!("rcrun {}", verb.name);
    // With the options that rcrun's own help leaves out.
    let command = verb.command().mut_args(|arg| arg.hide(false)).arg(tree::help());
    let command = command.display_name(&name).bin_name(&called);
    let mut command =
        command.override_usage(format!("{called} [OPTIONS] {}", verb.takes).trim_end().to_string());
    command.build();
    let man = Man::new(command)
        .title(name.to_uppercase())
        .section("8")
        .source(concat!("rcrun ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    let (paragraphs, examples) = verb.more.split_once("Example").unwrap_or((verb.more, ""));
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]).text([roman(format!("{}.", verb.about))]);
    for paragraph in paragraphs.split("\n\n").filter(|text| !text.trim().is_empty()) {
        roff.control("PP", []).text([roman(paragraph.trim())]);
    }
    if verb.name == "image" {
        commands(&mut roff);
    }
    roff.to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for example in examples.lines().skip(1) {
        roff.text([roman(example)]);
    }
    roff.control("fi", []).control("SH", ["SEE ALSO"]).text([bold("rcrun"), roman("(8)")]);
    if verb.name.starts_with("image ") {
        roff.text([roman(", "), bold("rcrun-image"), roman("(8)")]);
    }
    roff.to_writer(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

fn commands(roff: &mut Roff) {
    roff.control("SH", ["COMMANDS"]);
    for verb in image::VERBS {
        let page = format!("{}(8)", dashed(verb));
        roff.control("TP", []).text([bold(page)]).text([roman(format!("{}.", verb.about))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::global;
    use std::io::Write;
    use std::process::{Command, Stdio};

    // What a reader sees, without the breaks of lines.
    fn shown(page: &str) -> String {
        let mut groff = Command::new("groff")
            .args(["-mandoc", "-Tascii", "-P-cbou", "-ww", "-rHY=0", "-rLL=5000n"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("groff (Debian: groff-base)");
        groff.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("write");
        let output = groff.wait_with_output().expect("wait");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{page}");
        let text = String::from_utf8(output.stdout).expect("ASCII");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_option_of_every_verb_is_in_its_page_with_its_text() {
        for verb in verbs() {
            let text = shown(&page(verb).expect("a page"));
            assert!(text.contains(&format!("{} - {}", dashed(verb), verb.about)), "{text}");
            for arg in verb.command().get_arguments() {
                let mut name = format!("--{}", arg.get_long().expect("a long name"));
                if let Some(letter) = arg.get_short() {
                    name = format!("-{letter}, {name}");
                }
                assert!(text.contains(&name), "{}: {name}: {text}", verb.name);
                let help = arg.get_help().expect("a text").to_string();
                assert!(text.contains(&help), "{}: {help}: {text}", verb.name);
            }
            for line in verb.more.lines().filter(|line| !line.starts_with("Example")) {
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(text.contains(&line), "{}: {line}: {text}", verb.name);
            }
        }
    }

    #[test]
    fn the_pages_by_hand_name_every_verb_and_every_option_before_it() {
        let [rcrun, shim] = BY_HAND.map(|(_, text)| shown(text));
        for verb in verbs() {
            let page = format!("{}(8)", dashed(verb));
            assert!(rcrun.contains(&page), "{page}: {rcrun}");
        }
        for flag in global::FLAGS {
            assert!(rcrun.contains(&format!("--{}", flag.long)), "{}: {rcrun}", flag.long);
        }
        // Its flags are read by hand: the arms of a match.
        let reader = include_str!("../../shim/args.rs");
        let valued = reader.lines().filter_map(|line| line.split_once(" => &mut flags."));
        let flags: Vec<_> = valued.map(|(name, _)| name.trim().trim_matches('"')).collect();
        assert_eq!(flags.len(), 6, "{flags:?}");
        for flag in flags.into_iter().chain(["debug", "v", "info"]) {
            assert!(shim.contains(&format!(" -{flag}")), "{flag}: {shim}");
        }
    }
}
