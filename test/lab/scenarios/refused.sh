#!/bin/bash
# bad input to imgconv and domuswitch: one clear line, the designed status, nothing touched
# lab: vg=6G time=900
. /lab/lib.sh

# refused STATUS TEXT COMMAND...: a command fails so, and touches nothing.
refused() {
    local want=$1 text=$2 status=0
    shift 2
    "$@" >/run/stdout 2>/run/stderr || status=$?
    if [ "$status" != "$want" ] || ! grep -qF -- "$text" /run/stderr; then
        fail "$*: status $status, said: $(cat /run/stderr); want $want: $text"
    fi
    [ ! -s /run/stdout ] || fail "$* printed $(cat /run/stdout)"
    [ "$(grep -vc ': hint: ' /run/stderr)" -le 2 ] || fail "$* says too much: $(cat /run/stderr)"
    [ -z "$(lab_new)" ] || fail "$* left: $(lab_new)"
    [ "$(sha256sum /etc/xen/*.cfg)" = "$configs" ] || fail "$* changed a configuration"
    echo "ok: $want: $(grep -v ': hint: ' /run/stderr | head -n 1)"
}

lab_vg
lab_images_lv 1G
for n in vm3 vm4; do
    lab_image /srv/images/$n.img 128M
    lab_domu $n file:/srv/images/$n.img,xvda,w
done
# domain NAME TARGET: a domain that never runs.
domain() { lab_domu "$1" "file:$2,xvda,w"; }
domain none /dev/vg0/images
domain missing /srv/images/no.img
: >/srv/images/empty.img && domain empty /srv/images/empty.img
domain directory /srv/images
ln -s loop.img /srv/images/loop.img && domain loop /srv/images/loop.img
domain elsewhere /root/elsewhere.img && truncate -s 16M /root/elsewhere.img
domain shared /srv/images/vm4.img
printf 'QFI\373\0\0\0\003' >/srv/images/forged.img && truncate -s 16M /srv/images/forged.img && domain forged /srv/images/forged.img
domain qcow /srv/images/vm3.img && sed -i 's/file:\(.*\),xvda,w/\1,qcow2,xvda,w/' /etc/xen/qcow.cfg
domain crlf /srv/images/vm3.img && sed -i 's/$/\r/' /etc/xen/crlf.cfg
domain bom /srv/images/vm3.img && sed -i '1s/^/\xef\xbb\xbf/' /etc/xen/bom.cfg
domain python /srv/images/vm3.img && echo 'import os' >>/etc/xen/python.cfg
domain twice /srv/images/vm3.img && sed -i "s|'file:.*',|&'file:/srv/images/vm4.img,51712,w',|" /etc/xen/twice.cfg
echo "disk = 'file:/srv/images/vm3.img,xvda,w'" >>/etc/xen/twice.cfg
cp /etc/xen/twice.cfg /etc/xen/nolist.cfg && sed -i 's/"twice"/"nolist"/' /etc/xen/nolist.cfg

lab_domu two file:/srv/images/two-a.img,xvda,w file:/srv/images/two-b.img,xvdb,w
truncate -s 16M /srv/images/two-a.img /srv/images/two-b.img

small=$((128 * 2 - 8)) # sectors of 512 bytes less one extent
lvcreate -q -y -W n -n small -L $((small / 2))M vg0
lvcreate -q -y -W n -n full -L 256M vg0 && mkfs.ext4 -q -L precious /dev/vg0/full
lvcreate -q -y -W n -n mounted -L 256M vg0 && mkfs.ext4 -q /dev/vg0/mounted && mkdir -p /mnt/m && mount /dev/vg0/mounted /mnt/m
lvcreate -q -y -W n -n swap -L 256M vg0 && mkswap -q /dev/vg0/swap && swapon /dev/vg0/swap
lvcreate -q -y -W n -n pv -L 256M vg0 && pvcreate -q --config 'devices/scan_lvs=1' /dev/vg0/pv
lvcreate -q -y -W n -n used -L 256M vg0 && lab_domu vm5 phy:/dev/vg0/used,xvda,w
lvcreate -q -y -W n -n stale -L 256M vg0 && dd if=/dev/urandom of=/dev/vg0/stale bs=1M count=8 status=none
truncate -s 300M /root/pv4k
loop4k=$(losetup --find --show --sector-size 4096 /root/pv4k)
pvcreate -q "$loop4k" && vgcreate -q vg4k "$loop4k" && lvcreate -q -y -W n -n big -L 256M vg4k
check "vm4 runs" lab_start vm4
lab_wait_records vm4 10 120
lab_baseline
configs=$(sha256sum /etc/xen/*.cfg)

echo "the domain"
refused 3 "cannot find domain vm9" imgconv --snapshot --to vg0 vm9
refused 3 "" imgconv --snapshot --to vg0 -- -vm3
refused 2 "control character" imgconv --snapshot --to vg0 $'vm\n3'
refused 3 "" imgconv --snapshot --to vg0 "vm 3'"
check "nothing to do: no disk on a file" test "$(imgconv --snapshot --to vg0 none 2>&1 | grep -c 'nothing to do')" = 1
refused 3 "cannot find the image /srv/images/no.img" imgconv --snapshot --to vg0 missing
refused 3 "empty.img" imgconv --snapshot --to vg0 empty
refused 3 "directory" imgconv --snapshot --to vg0 directory
refused 3 "links lead in a circle" imgconv --snapshot --to vg0 loop
refused 3 "it is not on a logical volume" imgconv --snapshot --to vg0 elsewhere
refused 3 "domain vm4 has it as its disk xvda" imgconv --snapshot --to vg0 shared
refused 3 "forged.img" imgconv --snapshot --to vg0 forged
refused 3 "vm3.img" imgconv --snapshot --to vg0 qcow
refused 3 "crlf.cfg" imgconv --snapshot --to vg0 crlf
refused 3 "bom.cfg" imgconv --snapshot --to vg0 bom
refused 3 "python.cfg" imgconv --snapshot --to vg0 python
refused 3 "nolist.cfg" imgconv --snapshot --to vg0 nolist
refused 3 "cannot make the final pass: domain vm4 is running" imgconv --snapshot --final --to vg0 vm4

echo "the destination"
refused 3 "cannot tell where disk xvda of vm3 goes" imgconv --snapshot vm3
refused 3 "cannot find volume group vg9" imgconv --snapshot --to vg9 vm3
refused 2 "" imgconv --snapshot --to 'vg0/-x' vm3
refused 3 "has no such disk" imgconv --snapshot --to vg0 --to xvdz=vg0/x vm3
refused 3 "the volume only" imgconv --snapshot --to xvda=vg0/small vm3
refused 3 "it is mounted on /mnt/m" imgconv --snapshot --to xvda=vg0/mounted vm3
refused 3 "it is in use as swap" imgconv --snapshot --to xvda=vg0/swap vm3
refused 3 "holds LVM2_member" imgconv --snapshot --to xvda=vg0/pv vm3
refused 3 "vm5.cfg has it as a disk" imgconv --snapshot --to xvda=vg0/used vm3
refused 3 "it holds the image itself" imgconv --snapshot --to xvda=vg0/images vm3
refused 3 "it holds ext4 labelled precious" imgconv --snapshot --method blocks --to xvda=vg0/full vm3
refused 3 "its sectors are 4096 bytes" imgconv --snapshot --to xvda=vg4k/big vm3
refused 3 "it holds unknown data" imgconv --snapshot --to xvda=vg0/stale vm3
lvcreate -q -y -n filler -l 95%FREE vg0
lab_baseline
refused 3 "in volume group vg0 for new volumes and snapshots: only" imgconv --snapshot --to vg0 vm3
lvremove -q -y vg0/filler
lab_baseline

echo "the programs"
refused 3 "not root" setpriv --reuid=65534 --clear-groups imgconv --snapshot --to vg0 vm3
mkdir /run/nothing
for p in imgconv domuswitch; do ln -s "$(command -v $p)" /run/nothing/; done
refused 3 "cannot run lvs: it is not installed" env PATH=/run/nothing imgconv --snapshot --to vg0 vm3
check "and names the package" grep -q 'hint: apt-get install lvm2' /run/stderr
refused 3 "cannot run xl: it is not installed" env PATH=/run/nothing domuswitch stop vm3
check "and names the package" grep -q 'hint: apt-get install xen-utils' /run/stderr

echo "domuswitch"
refused 2 "want a time that is not negative" domuswitch stop --timeout -5s vm4
refused 2 "want seconds above 0" domuswitch live --max-pause 1e30 vm4
refused 2 "for flag -bwlimit" domuswitch live --bwlimit fast vm9
refused 2 "want a path" domuswitch stop --config= vm4
refused 3 "to one device /dev/vg0/stale, which also is /dev/mapper/vg0-stale" domuswitch restart --yes two xvda=/dev/vg0/stale xvdb=/dev/mapper/vg0-stale
loop=$(losetup --find --show /srv/images/two-a.img)
lab_baseline
refused 3 "that is its disk xvda" domuswitch restart --yes two "xvdb=$loop"
losetup -d "$loop"
status=0
domuswitch show --json vm4 >/dev/full 2>/run/stderr || status=$?
check "a result that nobody gets is told of" grep -qF 'the result cannot be printed' /run/stderr
check "by the exit status, too" test "$status" = 4

lab_tell vm4 verify
lab_judge vm4
check "vm4 never noticed" lab_shutdown vm4
lab_leftovers
