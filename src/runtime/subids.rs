//! /etc/subuid and /etc/subgid: which ids a user may map (subuid(5)). Knows no other module.

/// What `file`, in the form of /etc/subuid, gives to `uid`, by number or name: where each range begins, and how many ids.
pub(crate) fn ranges(file: &str, passwd: &str, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, found) = (fields.next()?, fields.nth(1)?);
        (found == number).then_some(name)
    });
    let range = |line: &str| {
        let mut fields = line.split(':');
        fields.next().filter(|who| *who == number || Some(*who) == name)?;
        let (first, count) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        Some((first, count)).filter(|(_, count)| *count > 0)
    };
    file.lines().filter_map(range).collect()
}
