#!/bin/bash
# Brings what the benchmark compares: Debian's runc, trixie's crun with the libraries it was built for, youki from
# crates.io, and the floor. Everything but Debian's packages lands under build/bench; what is there already is kept.
# setup.sh [quick]: quick leaves youki out (it is compiled, for minutes).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
out=$repo/build/bench
mkdir -p "$out"

packages=(runc busybox-static strace patchelf gcc libc6-dev)
# To build youki, which links libseccomp and a libbpf of its own.
[ "${1:-}" = quick ] || packages+=(pkg-config libseccomp-dev libelf-dev zlib1g-dev)
for package in "${packages[@]}"; do
	if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$'; then
		apt-get -o DPkg::Lock::Timeout=300 -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends \
			"${packages[@]}" >"$out/apt.log" 2>&1 || { cat "$out/apt.log" >&2; exit 1; }
		break
	fi
done

# The small C programs: no libc, nothing before main, no relocations.
for program in floor peak nothing; do
	gcc -O2 -Wall -Wextra -Werror -static -no-pie -nostdlib -ffreestanding -fno-stack-protector \
		-fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-s -o "$out/$program" "$here/$program.c"
done

# The floor that figures are a multiple of starts as any static C program does; `bare` is the same without that start.
mv "$out/floor" "$out/bare"
gcc -O2 -Wall -Wextra -Werror -static -no-pie -DHOSTED -Wl,-s -o "$out/floor" "$here/floor.c"

# trixie's crun, through an apt that shares nothing with the machine's own but the keys and the mirror's address. An
# empty dpkg status makes apt bring every library, down to the C library.
if ! "$out/crun/crun" --version >/dev/null 2>&1; then
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
	if [ -z "$mirror" ]; then
		echo "setup.sh: the machine's apt sources name no Debian mirror (apt-get update first)" >&2
		exit 1
	fi
	apt_dir=$out/apt-trixie
	rm -rf "$apt_dir" "$out/crun"
	mkdir -p "$apt_dir"/{etc/apt.conf.d,etc/preferences.d,state/lists/partial,cache/archives/partial} "$out/crun/lib"
	: >"$apt_dir/state/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt_dir/etc/sources.list"
	apt_trixie() {
		apt-get -qq -o Dir::Etc="$apt_dir/etc" -o Dir::Etc::sourcelist="$apt_dir/etc/sources.list" \
			-o Dir::Etc::sourceparts=- -o Dir::State="$apt_dir/state" -o Dir::State::status="$apt_dir/state/status" \
			-o Dir::Cache="$apt_dir/cache" -o APT::Sandbox::User=root "$@"
	}
	apt_trixie update
	apt_trixie install -y --download-only --no-install-recommends crun
	for deb in "$apt_dir"/cache/archives/*.deb; do
		dpkg-deb -x "$deb" "$apt_dir/root"
	done
	cp "$apt_dir/root/usr/bin/crun" "$out/crun/crun"
	find "$apt_dir/root" -name '*.so*' -path "*/lib/*-linux-gnu/*" ! -path '*/gconv/*' ! -path '*/security/*' \
		-exec cp -L -t "$out/crun/lib" {} +
	# crun finds its loader and libraries by itself: a wrapper script would be charged to it. RPATH (not RUNPATH) also
	# serves the libraries' own libraries.
	loader=$(cd "$out/crun/lib" && ls ld-linux-*.so.*)
	patchelf --set-interpreter "$out/crun/lib/$loader" --force-rpath --set-rpath "$out/crun/lib" "$out/crun/crun"
	# What crun does not load is not kept, so that its size can be told.
	loaded=$("$out/crun/lib/$loader" --list "$out/crun/crun" | grep -o "$out/crun/lib/[^ ]*" | sort -u)
	for library in "$out"/crun/lib/*; do
		grep -qxF "$library" <<<"$loaded" || [ "$(basename "$library")" = "$loader" ] || rm "$library"
	done
	"$out/crun/crun" --version >/dev/null
	rm -rf "$apt_dir"
fi

if [ "${1:-}" != quick ]; then
	# The crate's default features are none; these are the ones its own releases are built with. Without `seccomp` it
	# would load no filter and be timed doing less.
	features="systemd v1 v2 seccomp"
	# With its device program youki raises RLIMIT_MEMLOCK to 128 MiB, and dies where that is forbidden. There it is built
	# without, does that much less than the others, and the report says so (by this file).
	if (ulimit -l 131072) 2>/dev/null; then
		features+=" cgroupsv2_devices"
	fi
	if [ ! -x "$out/youki/bin/youki" ] || [ "$(cat "$out/youki/features" 2>/dev/null)" != "$features" ]; then
		cargo install --quiet --force --locked --version 0.7.0 --features "$features" --root "$out/youki" youki
		echo "$features" >"$out/youki/features"
	fi
fi
