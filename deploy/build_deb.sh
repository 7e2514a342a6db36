#!/bin/sh
# Builds the Debian package from this checkout: deploy/build_deb.sh [OUT-FOLDER] [FOLDER-WITH-WHEELS]
# With a folder of what `requirements.txt` names (deploy/RUNBOOK.md says how to fill it, on a machine of the same kind)
# the package installs without any index; its architecture is then this machine's.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/dist}
wheels=${2:-}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
architecture=all
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"
home=$tree/opt/edge-agent
install -d "$home" "$tree/DEBIAN" "$tree/lib/systemd/system" "$tree/lib/udev/rules.d" "$tree/usr/share/doc/edge-agent"

for part in edge_agent device_drivers templates_store deploy; do
    (cd "$root" && find "$part" -type f ! -path '*/__pycache__/*' ! -name '*.pyc' -print) | while read -r file; do
        mode=0644
        [ ! -x "$root/$file" ] || mode=0755
        install -D -m "$mode" "$root/$file" "$tree/opt/edge-agent/$file"
    done
done
install -m 0644 "$root/pyproject.toml" "$root/requirements.txt" "$root/requirements-build.txt" "$root/README.md" "$root/README.zh-CN.md" "$home"
install -m 0644 "$root/LICENSE" "$tree/usr/share/doc/edge-agent/copyright"
install -m 0644 "$root/deploy/edge-agent.service" "$tree/lib/systemd/system/edge-agent.service"
install -m 0644 "$root/deploy/99-edge-agent.rules" "$tree/lib/udev/rules.d/99-edge-agent.rules"
if [ -n "$wheels" ]; then
    architecture=$(dpkg --print-architecture)
    install -d "$home/wheels"
    find "$wheels" -maxdepth 1 \( -name '*.whl' -o -name '*.tar.gz' \) -exec install -m 0644 -t "$home/wheels" {} +
fi

sed -e "s/@VERSION@/$version/" -e "s/^Architecture: all$/Architecture: $architecture/" \
    "$root/deploy/debian/control.in" >"$tree/DEBIAN/control"
for script in postinst prerm postrm; do
    install -m 0755 "$root/deploy/debian/$script" "$tree/DEBIAN/$script"
done
mkdir -p "$out"
package=$out/edge-agent_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$tree" "$package" >/dev/null
echo "$package"
