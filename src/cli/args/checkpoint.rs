//! `rcrun checkpoint` and `rcrun restore`: their options, those of runc and of crun. Uses: flags.

use std::path::PathBuf;

use clap::Arg;
use clap::builder::PossibleValuesParser;
use rcrun_runtime::Result;
use rcrun_runtime::container::{Cgroups, Images, NetworkLock, PageServer};

use super::flags::{bundle, list, path, switch, text, valued};
use super::resolve::{Matches, here};
use super::usage;

/// `rcrun checkpoint`
#[derive(Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The container.
    pub id: String,
    /// What a restore has too.
    pub images: Images,
    /// `--parent-path`
    pub parent: Option<PathBuf>,
    /// `--pre-dump`
    pub pre_dump: bool,
    /// `--leave-running`
    pub leave_running: bool,
    /// `--tcp-skip-in-flight`
    pub tcp_skip_in_flight: bool,
    /// `--link-remap`
    pub link_remap: bool,
    /// `--page-server`
    pub page_server: Option<PageServer>,
    /// `--status-fd`
    pub status_fd: Option<u32>,
}

/// `rcrun restore`
#[derive(Debug, PartialEq, Eq)]
pub struct Restore {
    /// The container.
    pub id: String,
    /// `--bundle`: the folder with config.json.
    pub bundle: PathBuf,
    /// What a checkpoint has too.
    pub images: Images,
    /// `--parent-path`
    pub parent: Option<PathBuf>,
    /// `--detach`: return when the container runs.
    pub detach: bool,
    /// `--keep`: do not delete the container when it has ended.
    pub keep: bool,
    /// `--pid-file`
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`
    pub console_socket: Option<PathBuf>,
    /// `--no-subreaper`: do not adopt the orphans of the container's processes.
    pub no_subreaper: bool,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--tcp-close`
    pub tcp_close: bool,
    /// `--lsm-profile`
    pub lsm_profile: Option<String>,
    /// `--lsm-mount-context`
    pub lsm_mount_context: Option<String>,
}

fn common() -> Vec<Arg> {
    vec![
        path("image-path", "DIR", "The folder of the images (default: checkpoint)"),
        path("work-path", "DIR", "Where CRIU leaves its log and more (default: --image-path)"),
        path("parent-path", "DIR", "Images of an earlier checkpoint, relative to --image-path"),
        switch("tcp-established", "With TCP connections that are open"),
        switch("ext-unix-sk", "With Unix sockets whose other end is outside of the container"),
        switch("shell-job", "Of a session that was begun outside of the container"),
        switch("file-locks", "With file locks"),
        valued(
            "manage-cgroups-mode",
            "MODE",
            PossibleValuesParser::new(["soft", "full", "strict", "ignore"]),
        )
        .hide_possible_values(true)
        .help("Cgroups below: soft (default), full, strict, ignore"),
        list("empty-ns", "network", "Leave the network namespace empty: others fill it")
            .value_parser(PossibleValuesParser::new(["network"]))
            .hide_possible_values(true),
        switch("auto-dedup", "Remove memory from a parent's images that newer ones have"),
        switch("lazy-pages", "Move memory when it is asked for: see criu-lazy-pages"),
        valued("network-lock", "METHOD", PossibleValuesParser::new(["iptables", "nftables", "skip"]))
            .hide_possible_values(true)
            .help("How packets are held back meanwhile: iptables, nftables, skip"),
    ]
}

pub(super) fn checkpoint() -> Vec<Arg> {
    let mut flags = common();
    flags.extend([
        switch("leave-running", "Let the container run on").short('R'),
        switch("pre-dump", "Write the memory only, and let the container run"),
        switch("tcp-skip-in-flight", "Leave out TCP connections that are not accepted yet"),
        switch("link-remap", "With files that have lost their name"),
        text("page-server", "ADDRESS:PORT", "Send memory there; with --lazy-pages: hand it out there"),
        text("status-fd", "FD", "Write a zero byte to FD when lazy pages can be asked for"),
    ]);
    flags
}

pub(super) fn restore() -> Vec<Arg> {
    let mut flags = vec![bundle()];
    flags.extend(common());
    flags.extend([
        switch("detach", "Return when the container runs").short('d'),
        switch("keep", "Keep the container when it has ended, for `rcrun delete`"),
        switch("no-subreaper", "Do not adopt the orphans of the container's processes"),
        switch("no-pivot", "Has no effect: CRIU changes the root as it does"),
        path("pid-file", "FILE", "Write the pid of the container's first process to FILE"),
        path("console-socket", "SOCKET", "Send the master of the terminal to this socket"),
        switch("tcp-close", "Close TCP connections that were open"),
        text("lsm-profile", "TYPE:NAME", "Label of the processes (default: that of config.json)"),
        text("lsm-mount-context", "LABEL", "SELinux label of mounts (default: that of config.json)"),
    ]);
    flags
}

fn images(options: &Matches) -> Images {
    Images {
        // An option before the verb.
        criu: None,
        path: options.path("image-path").unwrap_or_else(|| "checkpoint".into()),
        work: options.path("work-path"),
        tcp_established: options.on("tcp-established"),
        ext_unix_sk: options.on("ext-unix-sk"),
        shell_job: options.on("shell-job"),
        file_locks: options.on("file-locks"),
        // The parser takes no other words.
        cgroups: options
            .word("manage-cgroups-mode")
            .and_then(|word| Cgroups::named(&word))
            .unwrap_or_default(),
        empty_network: !options.all::<String>("empty-ns").is_empty(),
        auto_dedup: options.on("auto-dedup"),
        lazy_pages: options.on("lazy-pages"),
        network_lock: match options.word("network-lock").as_deref() {
            Some("iptables") => Some(NetworkLock::Iptables),
            Some("nftables") => Some(NetworkLock::Nftables),
            Some("skip") => Some(NetworkLock::Skip),
            _ => None,
        },
    }
}

pub(super) fn checkpoint_resolved(id: String, options: &Matches) -> Result<Checkpoint> {
    let status = |word: String| {
        word.parse().map_err(|_| usage(format!("--status-fd: {word:?} is no number of a descriptor")))
    };
    Ok(Checkpoint {
        id,
        images: images(options),
        parent: options.path("parent-path"),
        pre_dump: options.on("pre-dump"),
        leave_running: options.on("leave-running"),
        tcp_skip_in_flight: options.on("tcp-skip-in-flight"),
        link_remap: options.on("link-remap"),
        page_server: options.word("page-server").map(|word| page_server(&word)).transpose()?,
        status_fd: options.word("status-fd").map(status).transpose()?,
    })
}

pub(super) fn restore_resolved(id: String, options: &Matches) -> Result<Restore> {
    Ok(Restore {
        id,
        bundle: options.path("bundle").unwrap_or_else(here),
        images: images(options),
        parent: options.path("parent-path"),
        detach: options.on("detach"),
        keep: options.on("keep"),
        pid_file: options.path("pid-file"),
        console_socket: options.path("console-socket"),
        no_subreaper: options.on("no-subreaper"),
        no_pivot: options.on("no-pivot"),
        tcp_close: options.on("tcp-close"),
        lsm_profile: options.word("lsm-profile"),
        lsm_mount_context: options.word("lsm-mount-context"),
    })
}

/// `10.0.0.1:27` or `[::1]:27`.
fn page_server(word: &str) -> Result<PageServer> {
    let parsed = word.rsplit_once(':').and_then(|(address, port)| {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        Some(PageServer { address: address.to_string(), port: port.parse().ok().filter(|port| *port > 0)? })
    });
    parsed
        .filter(|server| !server.address.is_empty())
        .ok_or_else(|| usage(format!("--page-server: {word:?} is not ADDRESS:PORT")))
}
