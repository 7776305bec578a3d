//! What control files hold, and what undoes a write to one. Pure.
//!
//! The table of limits is `resources::compile`: it turns each field into rows of (field, file, value), `Write`. A driver
//! takes these rows: cgroupfs writes the values to the files, systemd sets the property that stands for the file as well.
//! Here is what a row needs to be shown and taken back.

/// Files of which a write changes one line: the one that begins with the same key. With what takes a key's line away.
const KEYED: [(&str, &str); 9] = [
    ("io.max", "rbps=max wbps=max riops=max wiops=max"),
    ("io.weight", "default"),
    ("io.bfq.weight", "default"),
    ("io.latency", "target=0"),
    ("rdma.max", "hca_handle=max hca_object=max"),
    ("misc.max", "max"),
    ("dmem.max", "max"),
    ("dmem.low", "0"),
    ("dmem.min", "0"),
];

/// Of `content`, all that control file `file` says, what a write of `value` replaces. Written to the file, it undoes that.
pub(super) fn replaced_by(file: &str, value: &str, content: &str) -> String {
    let Some((_, none)) = KEYED.iter().find(|(name, _)| *name == file) else {
        return content.trim_end().to_string();
    };
    // `100` for io.weight means `default 100`.
    let key = value.split_once(' ').map_or("default", |(key, _)| key);
    let line = content.lines().find(|line| line.split(' ').next() == Some(key));
    match line {
        Some(line) => line.trim_end().to_string(),
        // Before Linux 5.4 io.bfq.weight has no keys.
        None if key == "default" => content.trim_end().to_string(),
        None => format!("{key} {none}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_write_replaces_is_the_file_or_the_line_of_its_key() {
        for (file, value, content, expected) in [
            ("memory.max", "1000", "max\n", "max"),
            ("cpu.max", "5000 10000", "max 100000\n", "max 100000"),
            ("cpuset.cpus", "0", "\n", ""),
            (
                "io.max",
                "8:0 rbps=1",
                "8:0 rbps=9 wbps=max riops=max wiops=5 \n",
                "8:0 rbps=9 wbps=max riops=max wiops=5",
            ),
            (
                "io.max",
                "8:1 rbps=1",
                "8:16 rbps=9 wbps=max riops=max wiops=max\n",
                "8:1 rbps=max wbps=max riops=max wiops=max",
            ),
            ("io.max", "8:1 rbps=1", "", "8:1 rbps=max wbps=max riops=max wiops=max"),
            ("io.weight", "300", "default 100\n8:0 50\n", "default 100"),
            ("io.weight", "8:0 300", "default 100\n8:0 50\n", "8:0 50"),
            ("io.weight", "8:16 300", "default 100\n8:0 50\n", "8:16 default"),
            ("io.bfq.weight", "300", "100\n", "100"),
            (
                "rdma.max",
                "m hca_handle=3",
                "m hca_handle=max hca_object=7\n",
                "m hca_handle=max hca_object=7",
            ),
            ("misc.max", "sev 3", "sev max\nsev_es 4\n", "sev max"),
            ("hugetlb.2MB.max", "0", "4194304\n", "4194304"),
        ] {
            assert_eq!(replaced_by(file, value, content), expected, "{value:?} to {file}");
        }
    }
}
