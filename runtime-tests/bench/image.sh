#!/bin/bash
# Makes the image of `make bench-image` from Debian packages, in five steps as somebody would write them into a build
# file. Each step runs in an overlay on the steps before it; its layer is what it leaves in the upper folder, whiteouts
# included. In build/bench/image: two OCI layouts, of the same tars as gzip and as zstd. What is there already is kept.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
out=$repo/build/bench/image

"$repo/runtime-tests/install-packages" "$here/image-packages"
# Who changes the steps changes the image.
version=$(sha256sum "${BASH_SOURCE[0]}" | cut -d ' ' -f 1)
[ "$(cat "$out/version" 2>/dev/null)" != "$version" ] || exit 0
# The mounts of the steps go with this namespace.
if [ -z "${IMAGE_SH_ALONE:-}" ]; then
	IMAGE_SH_ALONE=1 exec unshare --mount --propagation private "${BASH_SOURCE[0]}"
fi

# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(SITE)/' 2>/dev/null |
	sed -n "s/^Packages $suite //p" | head -n 1)
[ -n "$mirror" ] || { echo "image.sh: apt names no source for $suite: apt-get update" >&2; exit 1; }

# All is made in $new and moved at the end: what is there is whole.
new=$out.new
rm -rf "$out" "$new"
mkdir -p "$new"
log=$out.log
echo "image.sh: making the image from Debian packages, once; that takes minutes" >&2
exec 3>&2 >"$log" 2>&1
trap '[ $? = 0 ] || { tail -n 20 "$log" >&3; echo "image.sh: failed; all of its output is in $log" >&3; }' EXIT

# Overlays on a tmpfs work whatever the file system of the checkout is.
work=$new/work
mkdir "$work"
mount -t tmpfs -o mode=755 tmpfs "$work"

# The first layer is a Debian; these are the others. The lists and documents that one leaves behind the last one removes.
install() { apt-get -qq -y install --no-install-recommends "$@" && apt-get clean; }
export -f install
steps=(
	'apt-get -qq update && install python3 python3-pip'
	'install build-essential'
	'install python3-numpy && python3 -m compileall -q /usr/lib/python3/dist-packages && mkdir /app &&
		cp -a /usr/lib/python3.*/json /usr/lib/python3.*/email /app/'
	'apt-get -qq -y purge g++ g++-12 make && rm -r /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man &&
		mkdir /usr/share/doc && echo "import json" >/app/main.py && chmod -R go-w /app'
)

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
mmdebstrap --quiet --variant=minbase --mode=root "$suite" "$work/0" "$mirror"
mkdir "$work/root" "$work/tmp"
lower=$work/0
for i in "${!steps[@]}"; do
	upper=$work/$((i + 1))
	mkdir "$upper" "$work/tmp/$i"
	mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work/tmp/$i" "$work/root"
	mount -t tmpfs tmpfs "$work/root/tmp"
	mount -t proc proc "$work/root/proc"
	cp -L /etc/resolv.conf "$work/root/etc/resolv.conf"
	chroot "$work/root" /bin/bash -euc "${steps[$i]}"
	umount "$work/root/proc" "$work/root/tmp"
	umount "$work/root"
	lower=$upper:$lower
done

# Overlay's words for what a step removed, in those of a layer.
for ((i = 1; i <= ${#steps[@]}; i++)); do
	while IFS= read -r -d '' path; do
		[ "$(stat -c %t:%T "$path")" = 0:0 ] || continue
		rm "$path"
		touch -d @0 "$(dirname "$path")/.wh.$(basename "$path")"
	done < <(find "$work/$i" -type c -print0)
	while IFS= read -r -d '' path; do
		! getfattr --absolute-names -n trusted.overlay.opaque "$path" >/dev/null 2>&1 || touch -d @0 "$path/.wh..wh..opq"
	done < <(find "$work/$i" -type d -print0)
done

# blob LAYOUT FILE moves a file into a layout, and leaves its digest and size in $digest and $size.
blob() {
	digest=$(sha256sum "$2" | cut -d ' ' -f 1)
	size=$(stat -c %s "$2")
	mv "$2" "$1/blobs/sha256/$digest"
}

for kind in gzip zstd; do
	mkdir -p "$new/$kind/blobs/sha256"
	echo '{"imageLayoutVersion":"1.0.0"}' >"$new/$kind/oci-layout"
done
declare -A layers
diff_ids=
for ((i = 0; i <= ${#steps[@]}; i++)); do
	find "$work/$i" -mindepth 1 -printf '%P\0' | sort -z >"$work/names"
	tar -C "$work/$i" --null --no-recursion -T "$work/names" --numeric-owner --xattrs --xattrs-exclude='trusted.*' \
		--format=posix --pax-option=delete=atime,delete=ctime -cf "$work/tar"
	rm -rf "${work:?}/$i"
	diff_ids+=${diff_ids:+,}\"sha256:$(sha256sum "$work/tar" | cut -d ' ' -f 1)\"
	gzip -6 -n <"$work/tar" >"$new/gzip.blob" &
	zstd -q -3 <"$work/tar" >"$new/zstd.blob"
	wait $!
	for kind in gzip zstd; do
		blob "$new/$kind" "$new/$kind.blob"
		layers[$kind]+=${layers[$kind]:+,}'{"mediaType":"application/vnd.oci.image.layer.v1.tar+'$kind'","digest":"sha256:'$digest'","size":'$size'}'
	done
done
for kind in gzip zstd; do
	layout=$new/$kind
	printf '%s' '{"architecture":"'"$(dpkg --print-architecture)"'","os":"linux","config":{"Cmd":["/usr/bin/python3"],' \
		'"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},' \
		'"rootfs":{"type":"layers","diff_ids":['"$diff_ids"']}}' >"$new/config"
	blob "$layout" "$new/config"
	printf '%s' '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":' \
		'"application/vnd.oci.image.config.v1+json","digest":"sha256:'"$digest"'","size":'"$size"'},' \
		'"layers":['"${layers[$kind]}"']}' >"$new/manifest"
	blob "$layout" "$new/manifest"
	printf '%s' '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":' \
		'"sha256:'"$digest"'","size":'"$size"',"annotations":{"org.opencontainers.image.ref.name":"bench"}}]}' \
		>"$layout/index.json"
done
umount "$work"
rmdir "$work"
echo "$version" >"$new/version"
mv "$new" "$out"
