//! The table of fields is oci-spec's own, and what it says of a config.

use super::*;
use oci_spec::runtime as oci;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::json;
use std::collections::BTreeSet;

/// Asks a type for its fields, and gives it nothing.
struct Ask<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("asked"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields);
        Err(de::Error::custom("asked"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn of<T: for<'de> Deserialize<'de>>() -> BTreeSet<&'static str> {
    let mut fields = Vec::new();
    assert!(T::deserialize(Ask(&mut fields)).is_err());
    fields.into_iter().collect()
}

#[test]
fn each_row_of_the_table_is_what_oci_spec_reads_there() {
    let mapping = of::<oci::LinuxIdMapping>();
    let throttle = of::<oci::LinuxThrottleDevice>();
    let theirs = [
        ("", of::<oci::Spec>()),
        ("/process", of::<oci::Process>()),
        ("/process/consoleSize", of::<oci::Box>()),
        ("/process/user", of::<oci::User>()),
        ("/process/capabilities", of::<oci::LinuxCapabilities>()),
        ("/process/rlimits/*", of::<oci::PosixRlimit>()),
        ("/process/ioPriority", of::<oci::LinuxIOPriority>()),
        ("/process/scheduler", of::<oci::Scheduler>()),
        ("/process/execCPUAffinity", of::<oci::ExecCPUAffinity>()),
        ("/root", of::<oci::Root>()),
        ("/mounts/*", of::<oci::Mount>()),
        ("/mounts/*/uidMappings/*", mapping.clone()),
        ("/mounts/*/gidMappings/*", mapping.clone()),
        ("/hooks", of::<oci::Hooks>()),
        ("/hooks/*/*", of::<oci::Hook>()),
        ("/linux", of::<oci::Linux>()),
        ("/linux/uidMappings/*", mapping.clone()),
        ("/linux/gidMappings/*", mapping),
        ("/linux/namespaces/*", of::<oci::LinuxNamespace>()),
        ("/linux/devices/*", of::<oci::LinuxDevice>()),
        ("/linux/timeOffsets/*", of::<oci::LinuxTimeOffset>()),
        ("/linux/netDevices/*", of::<oci::LinuxNetDevice>()),
        ("/linux/personality", of::<oci::LinuxPersonality>()),
        ("/linux/memoryPolicy", of::<oci::LinuxMemoryPolicy>()),
        ("/linux/intelRdt", of::<oci::LinuxIntelRdt>()),
        ("/linux/resources", of::<oci::LinuxResources>()),
        ("/linux/resources/devices/*", of::<oci::LinuxDeviceCgroup>()),
        ("/linux/resources/memory", of::<oci::LinuxMemory>()),
        ("/linux/resources/cpu", of::<oci::LinuxCpu>()),
        ("/linux/resources/pids", of::<oci::LinuxPids>()),
        ("/linux/resources/blockIO", of::<oci::LinuxBlockIo>()),
        ("/linux/resources/blockIO/weightDevice/*", of::<oci::LinuxWeightDevice>()),
        ("/linux/resources/blockIO/throttleReadBpsDevice/*", throttle.clone()),
        ("/linux/resources/blockIO/throttleWriteBpsDevice/*", throttle.clone()),
        ("/linux/resources/blockIO/throttleReadIOPSDevice/*", throttle.clone()),
        ("/linux/resources/blockIO/throttleWriteIOPSDevice/*", throttle),
        ("/linux/resources/hugepageLimits/*", of::<oci::LinuxHugepageLimit>()),
        ("/linux/resources/network", of::<oci::LinuxNetwork>()),
        ("/linux/resources/network/priorities/*", of::<oci::LinuxInterfacePriority>()),
        ("/linux/resources/rdma/*", of::<oci::LinuxRdma>()),
        ("/linux/seccomp", of::<oci::LinuxSeccomp>()),
        ("/linux/seccomp/syscalls/*", of::<oci::LinuxSyscall>()),
        ("/linux/seccomp/syscalls/*/args/*", of::<oci::LinuxSeccompArg>()),
    ];
    // What oci-spec lacks or spells otherwise, with the name of the spec; `json` looks after these.
    let ours: [(&str, &[&str], &[&str]); 2] = [
        ("", &["freebsd"], &["uidMappings", "gidMappings"]),
        ("/linux/intelRdt", &["enableCMT", "enableMBM"], &["enableCmt", "enableMbm"]),
    ];
    assert_eq!(theirs.len(), FIELDS.len());
    let mut wrong = String::new();
    for ((place, fields), (theirs_place, mut theirs)) in FIELDS.into_iter().zip(theirs) {
        assert_eq!(place, theirs_place);
        if let Some((_, more, less)) = ours.iter().find(|(at, ..)| *at == place) {
            theirs.extend(more.iter());
            theirs.retain(|name| !less.contains(name));
        }
        let fields: BTreeSet<&str> = fields.split_whitespace().collect();
        if fields != theirs {
            wrong += &format!(
                "{place}: ours alone {:?}, theirs alone {:?}\n",
                fields.difference(&theirs).collect::<Vec<_>>(),
                theirs.difference(&fields).collect::<Vec<_>>()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_field_that_the_spec_has_not_is_found_wherever_it_stands_and_maps_have_any_name() {
    let config = json!({
        "ociVersion": "1.0.2",
        "comment": {"a": {"b": 1}},
        "root": {"path": "rootfs", "readOnly": true},
        "mounts": [{"destination": "/a"}, {"destination": "/b", "option": ["ro"]}],
        "annotations": {"any.name/at all": "x"},
        "hooks": {"poststop": [{"path": "/x", "arg": []}]},
        "linux": {
            "sysctl": {"net.core.somaxconn": "1"},
            "resources": {"unified": {"memory.high": "1"}, "memory": {"Limit": 1}}
        }
    });
    let found = unknown(&config);
    let pointers: Vec<&str> = found.iter().map(|unknown| unknown.pointer.as_str()).collect();
    let expected = [
        "/comment",
        "/hooks/poststop/0/arg",
        "/linux/resources/memory/Limit",
        "/mounts/1/option",
        "/root/readOnly",
    ];
    assert_eq!(pointers, expected);
    assert_eq!(found[4].known, ["path", "readonly"]);
}

#[test]
fn a_deprecated_field_is_found_where_it_says_something() {
    for (config, expected) in [
        (json!({"hooks": {"prestart": [{"path": "/a"}]}}), vec!["/hooks/prestart"]),
        (json!({"hooks": {"prestart": []}}), vec![]),
        (json!({"linux": {"resources": {"memory": {"kernel": 1}}}}), vec!["/linux/resources/memory/kernel"]),
    ] {
        let found: Vec<&str> = deprecated(&config).iter().map(|field| field.pointer).collect();
        assert_eq!(found, expected, "{config}");
    }
}
