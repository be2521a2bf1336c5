#!/bin/bash
# the disks below source, snapshot and destination fail, lie and hang while imgconv copies; what survives a crash is
# whole at every flush
# lab: suites=bookworm:full,trixie:full vg=516M,512M,1G time=900 gotest=./lib/journal
. /lab/lib.sh

read -ra disks <<<"$LAB_DISKS"
declare -A below=([origin]=${disks[0]} [store]=${disks[1]} [target]=${disks[2]})

# table NAME FROM LENGTH KIND [ARGUMENT...]: the disk below NAME does as KIND says from sector FROM on.
table() {
    local name=$1 from=$2 length=$3 kind=$4 disk=${below[$1]} all
    shift 4
    all=$(blockdev --getsz "$disk")
    [ "$from" = 0 ] || echo "0 $from linear $disk 0"
    case $kind in
    error) echo "$from $length error" ;;
    *) echo "$from $length $kind $disk $from $*" ;;
    esac
    [ $((from + length)) -ge "$all" ] || echo "$((from + length)) $((all - from - length)) linear $disk $((from + length))"
}
# disk_does NAME FROM LENGTH KIND...: from now on. What is under way is not waited for: it may hang.
disk_does() {
    table "$@" | dmsetup load "$1"
    dmsetup suspend --noflush --nolockfs "$1"
    dmsetup resume "$1"
}
heals() { disk_does "$1" 0 "$(blockdev --getsz "${below[$1]}")" linear; }

# LVM must not see a disk twice.
echo "devices { global_filter = [ \"r|^/dev/vd|\" ] }" >/etc/lvm/lvmlocal.conf
modprobe -a dm-flakey dm-delay dm-log-writes
for name in origin store target; do
    table $name 0 "$(blockdev --getsz "${below[$name]}")" linear | dmsetup create $name
done
pvcreate -q /dev/mapper/origin /dev/mapper/target
pvcreate -q --metadatacopies 0 /dev/mapper/store # so that it holds snapshots and nothing else
vgcreate -q vg0 /dev/mapper/origin /dev/mapper/store
vgcreate -q vg1 /dev/mapper/target
lvcreate -q -y -W n -n images -l 100%PVS vg0 /dev/mapper/origin
mkfs.ext4 -q /dev/vg0/images
mkdir -p /srv/images && mount /dev/vg0/images /srv/images
lab_image /srv/images/vm3.img 128M
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 64M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
sync
image=$(sha256sum </srv/images/vm3.img)
cp /etc/xen/vm3.cfg /run/image.cfg
lab_baseline

# ends STATUS TEXT COMMAND...: a command ends so.
ends() {
    local want=$1 text=$2 got=0
    shift 2
    "$@" >/run/stdout 2>/run/stderr || got=$?
    cat /run/stderr
    [ "$got" = "$want" ] || fail "$*: status $got; want $want"
    grep -qF -- "$text" /run/stderr || fail "$* does not say: $text"
    echo "ok: $want: $text"
}
# whole: what a fault may never touch.
whole() {
    check "the configuration is as it was" cmp /run/image.cfg /etc/xen/vm3.cfg
    check "the image is" test "$(sha256sum </srv/images/vm3.img)" = "$image"
}
undone() {
    whole
    test -z "$(lab_new)" || fail "left: $(lab_new)"
}
copy() { imgconv --snapshot --to vg1 "$@" vm3; }
# copying: a copy that takes some seconds is under way.
copying() { wait_for 60 grep -qF '] copy /srv/images/vm3.img' "$1"; }

echo "the source cannot be read at one place"
# The disk's sector of the image's first block behind 48 MiB: ext4's blocks are those of the volume.
block=$(filefrag -v -b4096 /srv/images/vm3.img |
    awk -F'[ :.]+' '$2 ~ /^[0-9]+$/ && $3 <= 12288 && $4 >= 12288 { print $5 + 12288 - $3 }')
start=$(dmsetup table vg0-images | awk '{ print $5 }')
disk_does origin $((start + block * 8)) 8 error
ends 1 'input/output error' copy
check "it names the place" grep -qE 'cannot read .* at 503[0-9]{5}: ' /run/stderr
heals origin
undone

echo "the disk with the snapshot fails"
imgconv --snapshot --to vg1 --verbose --bwlimit 4M vm3 >/run/stdout 2>/run/stderr &
copying /run/stderr
disk_does store 0 "$(blockdev --getsz "${disks[1]}")" flakey 0 1 1 error_writes
dd if=/dev/urandom of=/srv/images/other bs=1M count=8 conv=fsync status=none
status=0
wait $! || status=$?
cat /run/stderr
check "the copy is a failure" test "$status" = 1
check "that says so" grep -q 'the snapshot overflowed and is lost\|snapshot .* lost' /run/stderr
heals store
rm /srv/images/other
undone

echo "the destination takes no writes"
imgconv --snapshot --to vg1 --verbose --bwlimit 16M vm3 >/run/stdout 2>/run/stderr &
copying /run/stderr
disk_does target 8192 $(($(blockdev --getsz "${disks[2]}") - 8192)) flakey 0 1 1 error_writes
status=0
wait $! || status=$?
cat /run/stderr
check "a failure" test "$status" = 1
check "that says so" grep -q 'input/output error' /run/stderr
heals target
undone

echo "nor LVM's"
imgconv --snapshot --to vg1 --verbose --bwlimit 16M vm3 >/run/stdout 2>/run/stderr &
copying /run/stderr
disk_does target 0 "$(blockdev --getsz "${disks[2]}")" flakey 0 1 1 error_writes
status=0
wait $! || status=$?
cat /run/stderr
check "something is left" test "$status" = 4
check "and named" grep -qx 'imgconv: hint: lvremove --yes vg1/vm3-xvda' /run/stderr
heals target
check "as it says" lvremove --yes vg1/vm3-xvda
undone

echo "the destination drops what is written"
lvcreate -q -y -W n -n drops -L 128M vg1
disk_does target 8192 $(($(blockdev --getsz "${disks[2]}") - 8192)) flakey 0 1 1 drop_writes
ends 5 'differ' imgconv --snapshot --overwrite --to xvda=vg1/drops vm3
heals target
check "so it is marked" test "$(lvs --noheadings -o lv_tags vg1/drops | grep -c xenlvm.incomplete)" = 1
ends 3 'the copy on it is not complete' domuswitch apply vm3 xvda=/dev/vg1/drops
whole
check "the rerun makes it whole" imgconv --snapshot --to xvda=vg1/drops vm3
check "unmarked" test "$(lvs --noheadings -o lv_tags vg1/drops | grep -c xenlvm.incomplete)" = 0
lvremove -q -y vg1/drops
undone

echo "the destination is slow, and the copy interrupted"
rm -r /var/lib/xenlvm/vm3
disk_does target 0 "$(blockdev --getsz "${disks[2]}")" delay 200
imgconv --snapshot --to vg1 --verbose vm3 >/run/stdout 2>/run/stderr &
copying /run/stderr
kill -INT $!
status=0
wait $! || status=$?
check "interrupted" test "$status" = 130
heals target
undone

echo "the snapshot overflows in the final pass"
check "a first pass" copy
lab_baseline
head -c 4M /dev/urandom | dd of=/srv/images/vm3.img bs=1M seek=60 conv=notrunc,fsync status=none
image=$(sha256sum </srv/images/vm3.img)
imgconv --snapshot --final --whole --verbose --snapshot-size 8M --bwlimit 2M vm3 >/run/stdout 2>/run/stderr &
copying /run/stderr
dd if=/dev/urandom of=/srv/images/other bs=1M count=40 conv=fsync status=none
status=0
wait $! || status=$?
cat /run/stderr
check "a failure" test "$status" = 1
check "that says so" grep -q 'the snapshot overflowed and is lost' /run/stderr
check "the volume is marked" test "$(lvs --noheadings -o lv_tags vg1/vm3-xvda | grep -c xenlvm.incomplete)" = 1
ends 3 'the copy on it is not complete' domuswitch apply vm3 xvda=/dev/vg1/vm3-xvda
rm /srv/images/other
whole
check "the rerun makes it whole" imgconv --snapshot --final --whole vm3
check "identical" cmp -n $((128 << 20)) /srv/images/vm3.img /dev/vg1/vm3-xvda
check "and it is taken" domuswitch apply vm3 xvda=/dev/vg1/vm3-xvda

echo "the host loses power, at every flush"
export XENLVM_LAB=1
check "journal and configuration are whole" lab_gotest ./lib/journal -test.run TestLab
lab_leftovers
