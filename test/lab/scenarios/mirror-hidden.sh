#!/bin/bash
# partitions, volume groups and arrays in an image that is mirrored are none of dom0's business
# lab: suites=bookworm,trixie:full vg=2G time=600
. /lab/lib.sh

# only DEVICE: the configuration with which LVM sees that device alone.
only() { echo "devices { global_filter = [ \"a|^$1\$|\", \"r|.*|\" ] }"; }

# group DEVICE NAME: make a volume group of a guest on a device.
group() {
    pvcreate -q --config "$(only "$1")" "$1"
    vgcreate -q --config "$(only "$1")" "$2" "$1"
    lvcreate -q --config "$(only "$1")" -y -W n -n root -L 16M "$2"
    vgchange -q --config "$(only "$1")" -an "$2"
}

# half DEVICE METADATA: make a device one half of an array of a guest.
half() {
    mdadm --create --quiet --run --level=1 --raid-devices=2 --metadata="$2" --bitmap=none /dev/md77 "$1" missing
    udevadm settle
    mdadm --stop --quiet /dev/md77
}

# image NAME COMMAND...: make an image with a command that is given a loop device.
image() {
    local loop image=/srv/images/$1.img
    shift
    truncate -s 96M "$image"
    loop=$(losetup --find --show --partscan "$image")
    "$1" "$loop" "${@:2}"
    udevadm settle
    losetup --detach "$loop"
}

table() {
    printf 'label: gpt\n,24M\n,32M\n,\n' | sfdisk -q "$1"
    udevadm settle
    mkfs.ext4 -q -L guestroot "${1}p1"
    group "${1}p2" inside
    half "${1}p3" 1.2
}
bare() { mkfs.ext4 -q -L guestroot "$1"; }

# seen: all that leads into a disk, or is made of one.
seen() {
    find /dev -type b -o -type l | grep -vE '^/dev/(block/|disk/by-diskseq/)'
    awk '$1 ~ /^md/ { print $1, $5, $6 }' /proc/mdstat
    dmsetup ls | awk '$0 != "No devices found" { print "dm", $1 }'
}

# new: what is seen, and was not before; our own devices apart.
new() {
    udevadm settle
    seen | sort | comm -13 /run/seen - |
        grep -vE '^/dev/dm-[0-9]+$|^/dev/md127$|^/dev/md/xenlvm-[0-9a-f]{16}$|^/dev/mapper/xenlvm-|^md127 dm-|^dm xenlvm-' || true
}

# stays_hidden WHEN: nothing of the guest is seen.
stays_hidden() {
    local found
    found=$(new)
    [ -z "$found" ] || fail "$domain: $1: dom0 sees $found"
    if lvs --noheadings -o lv_dm_path,lv_active 2>/dev/null | grep active; then fail "$domain: $1: LVM activated it"; fi
}

# While the images are made, dom0 is to take no notice either.
echo 'global { event_activation = 0 }' >/etc/lvm/lvmlocal.conf
mkdir /srv/images
image bare bare
image table table
image group group guest
image twin group vg0
image array half 1.2
image old half 1.0
rm /etc/lvm/lvmlocal.conf
find /dev/inside /dev/guest /dev/vg0 -delete 2>/dev/null || true
lab_vg
udevadm settle
for domain in bare table group twin array old; do
    lab_domu "$domain" "file:/srv/images/$domain.img,xvda,w"
done
# Its name would make the name of an array that mdadm does not take.
long=bare+of-a-domain-with-a-long-name
mv /srv/images/bare.img "/srv/images/$long.img"
sed "s/bare/$long/" /etc/xen/bare.cfg >"/etc/xen/$long.cfg" && rm /etc/xen/bare.cfg
domains=("$long" table group twin array old)
seen | sort >/run/seen
lab_baseline

for domain in "${domains[@]}"; do
    check "build $domain" mdmirror build "$domain" 2>/run/said
    stays_hidden "built"
    # As at boot, and as when a program has closed a device.
    for action in change add; do
        udevadm trigger --subsystem-match=block --action=$action
        stays_hidden "after $action"
    done
    : 3<>/dev/md127 4<>"/dev/mapper/xenlvm-$domain-xvda"
    stays_hidden "closed"
    if blockdev --rereadpt /dev/md127 2>/dev/null; then fail "$domain: the kernel looks for partitions again"; fi
    case $domain in
    group | twin)
        check "it is said that LVM shows it" grep -q 'r|^/dev/md/xenlvm-|' /run/said
        check "it does" test "$(vgs --noheadings 2>/dev/null | wc -l)" = 2
        ;;
    *) check "LVM shows nothing of it" test "$(vgs --noheadings 2>/dev/null | wc -l)" = 1 ;;
    esac
    if [ "$domain" = twin ]; then
        status=0
        mdmirror add --to vg0 twin 2>/run/said || status=$?
        check "two groups of one name: refused" test "$status" = 3
        check "and why" grep -q 'cannot tell which volume group vg0 is meant: there are 2 of that name' /run/said
        grep -o 'global_filter = \[.*\]' <(mdmirror build twin 2>&1) >/run/filter
        echo "devices { $(cat /run/filter) }" >/etc/lvm/lvmlocal.conf
        check "with the filter LVM shows nothing of it" test "$(vgs --noheadings 2>/dev/null | wc -l)" = 1
        check "add" mdmirror add --to vg0 twin
        check "wait" mdmirror wait twin
    fi
    check "abort $domain" mdmirror abort "$domain"
    if [ "$domain" = twin ]; then
        lvremove -q -y vg0/twin-xvda
        rm /etc/lvm/lvmlocal.conf
    fi
    check "nothing is left" test -z "$(lab_new)"
    check "or seen" test -z "$(new)"
done
lab_leftovers
