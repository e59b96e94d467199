#!/usr/bin/env bash
# Makes what a release consists of, in dist/: an archive for each system, .deb
# and .rpm packages with the units inside, and SHA256SUMS. The same commit and
# the same Go give the same bytes: make dist.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
version=${VERSION#v}
case $version in
[0-9]*.[0-9]*) ;;
*) version=0.1.0-dev${version:+.g$version} ;; # no tag: packages want a number
esac
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH TZ=UTC CGO_ENABLED=0

rm -rf dist
mkdir -p dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

build() { # GOOS GOARCH FILE
	GOOS=$1 GOARCH=$2 $GO build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$3" .
}

# dated gives all files beneath a directory the time of the commit.
dated() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }

echo "sbcast $version"
build "$($GO env GOHOSTOS)" "$($GO env GOHOSTARCH)" "$work/sbcast" # says the man page of all

for os in linux darwin windows; do
	for arch in amd64 arm64; do
		name=sbcast_${version}_${os}_$arch
		exe=sbcast
		test $os != windows || exe=sbcast.exe
		tree=$work/$name
		mkdir "$tree"
		build $os $arch "$tree/$exe"
		cp LICENSE README.md CHANGELOG.md "$tree"
		"$work/sbcast" man >"$tree/sbcast.1"
		if test $os = linux; then
			cp -R scripts/systemd "$tree"
		fi
		if test $os = windows; then
			dated "$tree"
			(cd "$work" && find "$name" | LC_ALL=C sort | zip -q -X -9 "$OLDPWD/dist/$name.zip" -@)
			continue
		fi
		mkdir "$tree/completions"
		cp scripts/completions/* "$tree/completions"
		tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu -cf - "$name" |
			gzip -n -9 >"dist/$name.tar.gz"
	done
done

# The packages hold what make install puts in place.
$GO -C tools/dist build -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
for arch in amd64 arm64; do
	root=$work/root-$arch
	scripts/install.sh "$work/sbcast_${version}_linux_$arch/sbcast" "$root" /usr /etc "$work/sbcast"
	gzip -n -9 "$root/usr/share/man/man1/sbcast.1"
	dated "$root"
	for format in deb rpm; do
		ROOT=$root ARCH=$arch VERSION=$version "$work/nfpm" package -f scripts/package/nfpm.yaml -p $format -t dist/ | tail -n 1
	done
done

(cd dist && sha256sum -- * >SHA256SUMS)
ls -l dist
