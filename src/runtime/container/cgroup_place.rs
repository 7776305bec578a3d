//! Where a container's cgroup is to be, and who makes it: rcrun, systemd, or, for an ordinary user, nobody.

use super::state::State;
use crate::cgroup::{self, Cgroup, CgroupPath, Hierarchy, Place, Policy, Write};
use crate::spec::Spec;
use crate::spec::id::ContainerId;
use crate::sys::hold::Hold;
use crate::systemd::{self, Property, Unit};
use crate::{Code, Error, Result};
use std::path::PathBuf;

/// The cgroup, and with it the unit that it comes with.
#[derive(Debug)]
pub(crate) struct CgroupPlace {
    /// Below which mount, and where. None where an ordinary user may make none and needs none.
    pub cgroup: Option<(Hierarchy, CgroupPath)>,
    /// The unit of systemd's, and what systemd is told of it.
    pub unit: Option<(Unit, Vec<Property>)>,
}

impl CgroupPlace {
    /// Of container `id`; systemd is to make it.
    pub(super) fn by_systemd(
        spec: &Spec,
        id: &ContainerId,
        writes: &[Write],
        policy: &Policy,
    ) -> Result<CgroupPlace> {
        let named = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
        let name = systemd::Name::of(named, id.as_str(), systemd::is_users())?;
        let annotations = spec.annotations().as_ref();
        let wanted = systemd::Wanted { id: id.as_str(), name: &name, writes, policy, annotations };
        let unit = Some((name.unit(annotations), wanted.properties()?));
        // Where the user's manager has really put it is known when it is made.
        Ok(CgroupPlace { cgroup: Some((Hierarchy::find()?, name.cgroup()?)), unit })
    }

    /// Of container `id`; rcrun is to make it.
    pub(super) fn by_rcrun(
        spec: &Spec,
        id: &ContainerId,
        writes: &[Write],
        rootless: bool,
    ) -> Result<CgroupPlace> {
        Ok(CgroupPlace { cgroup: path(spec, id, rootless, writes)?, unit: None })
    }

    /// Nowhere: its processes stay in the cgroup of who calls, and limits would be that one's.
    pub(super) fn none(writes: &[Write]) -> Result<CgroupPlace> {
        match writes.first() {
            None => Ok(CgroupPlace { cgroup: None, unit: None }),
            Some(limit) => {
                let text = format!(
                    "config.json: {}: the limit cannot be set: with --cgroup-manager disabled the container has no cgroup",
                    limit.pointer
                );
                Err(Error::new(Code::Config, text).at(&limit.pointer))
            }
        }
    }

    /// What the container's state remembers of the cgroup: the mount, and the path below it.
    pub(super) fn remembered(&self) -> Option<(PathBuf, String)> {
        let place = self.cgroup.as_ref();
        place.map(|(hierarchy, path)| (hierarchy.path().to_path_buf(), path.as_str().to_string()))
    }

    /// Has systemd make the cgroup, if it is to: the process that keeps it until init is there. `state` then has the place.
    pub(super) fn start_unit(&mut self, state: &mut State) -> Result<Option<Hold>> {
        let Some((unit, properties)) = &self.unit else { return Ok(None) };
        if let Some((hierarchy, path)) = &self.cgroup {
            Cgroup::check_before_unit(hierarchy, &unit.expected(path)?)?;
        }
        let started = unit.start(properties)?;
        self.cgroup = self.cgroup.take().map(|(hierarchy, _)| (hierarchy, started.cgroup));
        state.cgroup = self.remembered();
        Ok(Some(started.hold))
    }
}

/// The container's cgroup, and the mount that it lies below; None where an ordinary user may make none and needs none.
fn path(
    spec: &Spec,
    id: &ContainerId,
    rootless: bool,
    limits: &[Write],
) -> Result<Option<(Hierarchy, CgroupPath)>> {
    let named = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref());
    if !rootless {
        let hierarchy = Hierarchy::find()?;
        let path = CgroupPath::for_container(named, id.as_str(), || hierarchy.own_path())?;
        return Ok(Some((hierarchy, path)));
    }
    let why = match Hierarchy::find() {
        Ok(hierarchy) => match cgroup::place(&hierarchy, named, id.as_str())? {
            Place::In(path) => return Ok(Some((hierarchy, path))),
            Place::Nowhere(why) => why,
        },
        Err(error) if error.code() == Code::Host => error.to_string(),
        Err(error) => return Err(error),
    };
    match limits.first() {
        None => Ok(None),
        Some(limit) => Err(Error::new(
            Code::Host,
            format!(
                "config.json: {}: the limit cannot be set, for the container can have no cgroup: {why}",
                limit.pointer
            ),
        )
        .at(&limit.pointer)),
    }
}
