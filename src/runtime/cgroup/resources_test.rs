//! The conversions, field by field and for what real engines write.

use super::*;

fn compiled(json: &str) -> Result<Compiled> {
    let resources: LinuxResources =
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    compile(&resources)
}

/// `file=value` for each write, `?` after the value where a missing file is no failure, `|file=value` for the second.
fn shown(json: &str) -> Vec<String> {
    let compiled = compiled(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    compiled
        .writes
        .iter()
        .map(|write| {
            let mut text = format!("{}={}", write.file, write.value);
            if let Some((file, value)) = &write.or_else {
                text += &format!("|{file}={value}");
            }
            text + if write.missing_ok { "?" } else { "" }
        })
        .collect()
}

#[test]
fn each_field_becomes_the_write_that_runc_makes() {
    for (json, expected) in [
        (r#"{}"#, &[][..]),
        // Memory.
        (r#"{"memory":{}}"#, &[]),
        (r#"{"memory":{"limit":0,"reservation":0,"swap":0}}"#, &[]),
        (r#"{"memory":{"limit":33554432}}"#, &["memory.max=33554432"]),
        (r#"{"memory":{"limit":-1}}"#, &["memory.swap.max=max?", "memory.max=max?"]),
        (r#"{"memory":{"reservation":1048576}}"#, &["memory.low=1048576"]),
        (r#"{"memory":{"reservation":-1}}"#, &["memory.low=max?"]),
        (r#"{"memory":{"limit":100,"swap":300}}"#, &["memory.swap.max=200", "memory.max=100"]),
        (r#"{"memory":{"limit":100,"swap":100}}"#, &["memory.swap.max=0?", "memory.max=100"]),
        (r#"{"memory":{"limit":100,"swap":-1}}"#, &["memory.swap.max=max?", "memory.max=100"]),
        (r#"{"memory":{"limit":-1,"swap":300}}"#, &["memory.swap.max=300", "memory.max=max?"]),
        (r#"{"memory":{"swap":-1}}"#, &["memory.swap.max=max?"]),
        (r#"{"memory":{"kernel":0,"kernelTCP":-1,"disableOOMKiller":false,"useHierarchy":true}}"#, &[]),
        // CPU.
        (r#"{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0}}"#, &[]),
        (r#"{"cpu":{"shares":1}}"#, &["cpu.weight=1"]),
        (r#"{"cpu":{"shares":2}}"#, &["cpu.weight=1"]),
        (r#"{"cpu":{"shares":1024}}"#, &["cpu.weight=100"]),
        (r#"{"cpu":{"shares":262144}}"#, &["cpu.weight=10000"]),
        (r#"{"cpu":{"shares":18446744073709551615}}"#, &["cpu.weight=10000"]),
        (r#"{"cpu":{"quota":50000}}"#, &["cpu.max=50000 100000"]),
        (r#"{"cpu":{"quota":50000,"period":20000}}"#, &["cpu.max=50000 20000"]),
        (r#"{"cpu":{"period":20000}}"#, &["cpu.max=max 20000?"]),
        (r#"{"cpu":{"quota":-1}}"#, &["cpu.max=max 100000?"]),
        (r#"{"cpu":{"quota":50000,"burst":20000}}"#, &["cpu.max=50000 100000", "cpu.max.burst=20000"]),
        (r#"{"cpu":{"burst":0}}"#, &["cpu.max.burst=0?"]),
        (r#"{"cpu":{"idle":1}}"#, &["cpu.idle=1"]),
        (r#"{"cpu":{"idle":0,"shares":512}}"#, &["cpu.idle=0?", "cpu.weight=59"]),
        (r#"{"cpu":{"cpus":"0-1,3","mems":"0"}}"#, &["cpuset.cpus=0-1,3", "cpuset.mems=0"]),
        (r#"{"cpu":{"cpus":"","mems":""}}"#, &[]),
        // Processes.
        (r#"{"pids":{"limit":100}}"#, &["pids.max=100"]),
        (r#"{"pids":{"limit":-1}}"#, &["pids.max=max?"]),
        (r#"{"pids":{"limit":0}}"#, &["pids.max=1?"]),
        (r#"{"pids":{}}"#, &["pids.max=1?"]),
        // Block devices.
        (r#"{"blockIO":{"weight":0}}"#, &[]),
        (r#"{"blockIO":{"weight":10}}"#, &["io.bfq.weight=10|io.weight=1"]),
        (r#"{"blockIO":{"weight":500}}"#, &["io.bfq.weight=500|io.weight=4950"]),
        (r#"{"blockIO":{"weight":1000}}"#, &["io.bfq.weight=1000|io.weight=10000"]),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":100},{"major":8,"minor":0}]}}"#,
            &["io.bfq.weight=8:16 100|io.weight=8:16 910"],
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":700}],"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#,
            &["io.max=8:0 rbps=600", "io.max=8:0 wbps=700", "io.max=8:0 riops=3", "io.max=8:0 wiops=max?"],
        ),
        // Huge pages.
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304},{"pageSize":"64KB","limit":0}]}"#,
            &[
                "hugetlb.2MB.max=4194304",
                "hugetlb.2MB.rsvd.max=4194304",
                "hugetlb.64KB.max=0",
                "hugetlb.64KB.rsvd.max=0",
            ],
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"1GB","limit":-1}]}"#,
            &["hugetlb.1GB.max=max?", "hugetlb.1GB.rsvd.max=max?"],
        ),
        // RDMA, in a fixed order.
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"mlx4_0":{"hcaObjects":7},"none":{}}}"#,
            &["rdma.max=mlx4_0 hca_object=7", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"],
        ),
        // The unified map comes last, sorted, a line at a time, and unknown files are written.
        (
            r#"{"unified":{"memory.high":"1000","io.max":"8:0 rbps=1\n8:16 wbps=2\n","future.knob":"7"},"pids":{"limit":3}}"#,
            &["pids.max=3", "future.knob=7", "io.max=8:0 rbps=1", "io.max=8:16 wbps=2", "memory.high=1000"],
        ),
        (r#"{"unified":{"cpuset.cpus":""}}"#, &["cpuset.cpus=\n"]),
    ] {
        assert_eq!(shown(json), expected, "{json}");
    }
}

#[test]
fn weights_grow_with_shares_between_the_three_fixed_points() {
    // Worked out from the formula with fifty digits; 1024 is the fixed point that rounding must not miss.
    for (shares, weight) in [
        (3, 2),
        (4, 2),
        (5, 2),
        (10, 4),
        (100, 17),
        (102, 17),
        (256, 35),
        (512, 59),
        (1023, 100),
        (1024, 100),
        (1025, 101),
        (2048, 174),
        (4096, 303),
        (8192, 532),
        (65536, 3023),
        (131072, 5478),
        (262143, 10000),
    ] {
        assert_eq!(weight_from_shares(shares), weight, "{shares} shares");
    }
    let mut last = 0;
    for shares in 1..=262_144 {
        let weight = weight_from_shares(shares);
        assert!(
            weight >= last && (1..=10_000).contains(&weight),
            "{shares} shares weigh {weight}, fewer {last}"
        );
        last = weight;
    }
}

#[test]
fn a_value_that_means_nothing_is_refused_where_it_stands() {
    for (json, pointer, reason) in [
        (r#"{"memory":{"limit":-2}}"#, "memory/limit", "neither a size nor -1"),
        (r#"{"memory":{"swap":300}}"#, "memory/swap", "unable to set swap limit without memory limit"),
        (r#"{"memory":{"limit":300,"swap":100}}"#, "memory/swap", "should be >= memory limit 300"),
        (r#"{"cpu":{"idle":2}}"#, "cpu/idle", "neither 0 nor 1"),
        (r#"{"cpu":{"realtimeRuntime":950000}}"#, "cpu/realtimeRuntime", "realtime scheduling"),
        (r#"{"cpu":{"realtimePeriod":1000000}}"#, "cpu/realtimePeriod", "realtime scheduling"),
        (r#"{"cpu":{"cpus":"0\n1"}}"#, "cpu/cpus", "NUL or newline"),
        (r#"{"cpu":{"mems":"0\u0000"}}"#, "cpu/mems", "NUL or newline"),
        (r#"{"blockIO":{"weight":9}}"#, "blockIO/weight", "not between 10 and 1000"),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":1001}]}}"#,
            "blockIO/weightDevice/0/weight",
            "not between",
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-8,"minor":0,"rate":1}]}}"#,
            "blockIO/throttleReadBpsDevice/0",
            "no device number",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"../x","limit":1}]}"#,
            "hugepageLimits/1/pageSize",
            "no page size",
        ),
        (r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#, "hugepageLimits/0/pageSize", "no page size"),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MBMB","limit":1}]}"#,
            "hugepageLimits/0/pageSize",
            "no page size",
        ),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-2}]}"#, "hugepageLimits/0/limit", "neither a size"),
        (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "rdma/a b", "no name of an RDMA device"),
        (r#"{"unified":{"../memory.max":"1"}}"#, "unified/..~1memory.max", "no slashes"),
        (r#"{"unified":{"..":"1"}}"#, "unified/..", "no slashes"),
        (r#"{"unified":{"memory.max":"1\u00002"}}"#, "unified/memory.max", "NUL"),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified/cgroup.procs", "cgroup.procs is no limit"),
        (r#"{"unified":{"cgroup.threads":"1"}}"#, "unified/cgroup.threads", "is no limit"),
        (r#"{"unified":{"cgroup.kill":"1"}}"#, "unified/cgroup.kill", "is no limit"),
        (r#"{"unified":{"cgroup.freeze":"1"}}"#, "unified/cgroup.freeze", "is no limit"),
        (r#"{"unified":{"cgroup.type":"threaded"}}"#, "unified/cgroup.type", "is no limit"),
        (
            r#"{"unified":{"cgroup.subtree_control":"+pids"}}"#,
            "unified/cgroup.subtree_control",
            "is no limit",
        ),
    ] {
        let error = compiled(json).expect_err(json);
        assert_eq!(error.pointer(), Some(format!("/linux/resources/{pointer}").as_str()), "{json}");
        assert!(error.to_string().contains(reason), "{json}: {error}");
    }
}

#[test]
fn a_field_without_effect_on_v2_is_told() {
    for (json, pointers) in [
        (r#"{"memory":{"kernel":1000,"kernelTCP":2000}}"#, &["memory/kernel", "memory/kernelTCP"][..]),
        (r#"{"memory":{"swappiness":60}}"#, &["memory/swappiness"]),
        (
            r#"{"memory":{"disableOOMKiller":true,"useHierarchy":false}}"#,
            &["memory/disableOOMKiller", "memory/useHierarchy"],
        ),
        (r#"{"cpu":{"idle":1,"shares":1024}}"#, &["cpu/shares"]),
        (
            r#"{"blockIO":{"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"leafWeight":5}]}}"#,
            &["blockIO/leafWeight", "blockIO/weightDevice/0/leafWeight"],
        ),
        (
            r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#,
            &["network/classID", "network/priorities"],
        ),
        (r#"{"network":{"classID":0,"priorities":[]}}"#, &[]),
    ] {
        let compiled = compiled(json).unwrap();
        let told: Vec<_> = compiled.warnings.iter().map(|warning| warning.pointer.clone()).collect();
        let expected: Vec<_> = pointers.iter().map(|pointer| in_resources(pointer)).collect();
        assert_eq!(told, expected, "{json}");
        assert!(compiled.warnings.iter().all(|warning| !warning.message.is_empty()));
    }
}

#[test]
fn each_write_names_its_field_and_controller() {
    let json = r#"{"memory":{"limit":5,"checkBeforeUpdate":true},"cpu":{"quota":1000,"cpus":"0"},"unified":{"a~b":"1","misc.max":"x 1"}}"#;
    let compiled = compiled(json).unwrap();
    let named: Vec<_> =
        compiled.writes.iter().map(|write| (write.pointer.as_str(), &*write.controller)).collect();
    assert_eq!(
        named,
        [
            ("/linux/resources/memory/limit", "memory"),
            ("/linux/resources/cpu/quota", "cpu"),
            ("/linux/resources/cpu/cpus", "cpuset"),
            ("/linux/resources/unified/a~0b", "a~b"),
            ("/linux/resources/unified/misc.max", "misc"),
        ]
    );
    assert!(compiled.check_before_update);
    let domain: Vec<_> = compiled.writes.iter().map(Write::needs_domain).collect();
    assert_eq!(domain, [true, false, false, true, true]);
}

#[test]
fn the_defaults_of_real_engines_ask_for_nothing_that_a_bare_hierarchy_lacks() {
    for (engine, json, needed) in [
        ("runc spec", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#, &[][..]),
        (
            "Docker 29, docker run alpine",
            r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":9,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":8,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":0,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":1,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}],"memory":{},"cpu":{"shares":0},"blockIO":{}}"#,
            &[],
        ),
        (
            "Docker 19.03, docker run alpine",
            r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"disableOOMKiller":false},"cpu":{"shares":0},"pids":{"limit":0},"blockIO":{"weight":0}}"#,
            &[],
        ),
        (
            "Docker, --memory 64m --cpus 1.5 --pids-limit 100",
            r#"{"memory":{"limit":67108864,"swap":134217728},"cpu":{"shares":0,"quota":150000,"period":100000},"pids":{"limit":100},"blockIO":{"weight":0}}"#,
            &["pids.max", "memory.swap.max", "memory.max", "cpu.max"],
        ),
        ("Docker, --memory -1 --pids-limit -1", r#"{"memory":{"limit":-1},"pids":{"limit":-1}}"#, &[]),
        (
            "podman 5, podman run alpine",
            r#"{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":2048}}"#,
            &["pids.max"],
        ),
        (
            "podman 5, --pids-limit 0",
            r#"{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":-1}}"#,
            &[],
        ),
        (
            "containerd 2, ctr run",
            r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}],"cpu":{"shares":1024}}"#,
            &["cpu.weight"],
        ),
        (
            "containerd 2, CRI with requests and limits",
            r#"{"memory":{"limit":134217728,"swap":134217728},"cpu":{"shares":102,"quota":20000,"period":100000},"unified":{"memory.oom.group":"1","memory.high":"107374182"}}"#,
            &["memory.max", "cpu.weight", "cpu.max", "memory.high", "memory.oom.group"],
        ),
    ] {
        let compiled = compiled(json).unwrap_or_else(|error| panic!("{engine}: {error}"));
        let files: Vec<_> =
            compiled.writes.iter().filter(|write| !write.missing_ok).map(|write| &*write.file).collect();
        assert_eq!(files, needed, "{engine}");
        assert_eq!(compiled.warnings, [], "{engine}");
    }
}
