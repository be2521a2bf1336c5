#!/bin/bash
# bad input to mdmirror, and a domain that is not as it should be: one clear line, the designed status, nothing touched
# lab: suites=bookworm:full vg=5G time=1500
. /lab/lib.sh

# refused STATUS TEXT HINT COMMAND...: a command fails so, and touches nothing.
refused() {
    local want=$1 text=$2 hint=$3 status=0
    shift 3
    "$@" >/run/stdout 2>/run/stderr || status=$?
    if [ "$status" != "$want" ] || ! grep -v ': hint: ' /run/stderr | grep -qF -- "$text"; then
        fail "$*: status $status, said: $(cat /run/stderr); want $want: $text"
    fi
    grep ': hint: ' /run/stderr | grep -qF -- "$hint" || fail "$*: said: $(cat /run/stderr); want the hint $hint"
    [ ! -s /run/stdout ] || fail "$* printed $(cat /run/stdout)"
    [ "$(wc -l </run/stderr)" = 2 ] || fail "$* says too much: $(cat /run/stderr)"
    [ -z "$(lab_new)" ] || fail "$* left: $(lab_new)"
    [ "$(sha256sum /etc/xen/*.cfg)" = "$configs" ] || fail "$* changed a configuration"
    echo "ok: $want: $(head -n 1 /run/stderr)"
}

# on_mirror NAME: start a domain on its mirror.
on_mirror() {
    sed "s|file:/srv/images/$1.img|phy:/dev/mapper/xenlvm-$1-xvda|" "/etc/xen/$1.cfg" >"/run/$1.cfg"
    xl create -q "/run/$1.cfg"
    lab_wait_records "$1" 10 120
}
goes_on() { lab_wait_records "$1" $(($(lab_records "$1") + 20)) 90; }

lab_vg
lab_images_lv 1536M
for n in vm3 vm4; do lab_image /srv/images/$n.img 128M; done
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 64M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_image /srv/images/odd.img $(((64 << 20) + 512))
for n in two-a two-b; do lab_image /srv/images/$n.img 64M; done
lab_image /srv/images/q.img 64M
qemu-img convert -O qcow2 /srv/images/q.img /srv/images/q.qcow2
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
# It crashes when it is told to, and is kept then.
LAB_DOMU_OPTIONS=sysrq_always_enabled=1 lab_domu vm4 file:/srv/images/vm4.img,xvda,w
sed -i 's/on_crash = .*/on_crash = "preserve"/' /etc/xen/vm4.cfg
lab_domu odd file:/srv/images/odd.img,xvda,w
LAB_DOMU_OPTIONS=lab.disks=xvdb lab_domu two file:/srv/images/two-a.img,xvda,w file:/srv/images/two-b.img,xvdb,w
lab_domu q /srv/images/q.qcow2,qcow2,xvda,w
lvcreate -q -y -W n -n small -L 64M vg0
lvcreate -q -y -W n -n smaller -L 124M vg0
lvcreate -q -y -W n -n mounted -L 256M vg0 && mkfs.ext4 -q /dev/vg0/mounted && mkdir -p /mnt/m && mount /dev/vg0/mounted /mnt/m
lvcreate -q -y -W n -n full -L 256M vg0 && mkfs.ext4 -q -L precious /dev/vg0/full
lvcreate -q -y -W n -n used -L 256M vg0 && lab_domu vm5 phy:/dev/vg0/used,xvda,w
truncate -s 300M /root/pv4k
loop4k=$(losetup --find --show --sector-size 4096 /root/pv4k)
pvcreate -q "$loop4k" && vgcreate -q vg4k "$loop4k" && lvcreate -q -y -W n -n big -L 256M vg4k
configs=$(sha256sum /etc/xen/*.cfg)
lab_baseline
cp /run/lab-baseline /run/at-first

echo "what is in the way of a mirror"
loop=$(losetup --find --show /srv/images/vm3.img)
lab_baseline
refused 3 "cannot mirror /srv/images/vm3.img: $loop is attached to it" "losetup --detach $loop" mdmirror build vm3
losetup --detach "$loop"
array=$(mdmirror build --dry-run vm3 | grep -o '/dev/md/[^ ]*' | head -n 1)
truncate -s 16M /root/foreign
loop=$(losetup --find --show /root/foreign)
mdadm --build "$array" --run --bitmap=none --level=1 --raid-devices=2 "$loop" missing 2>/dev/null
udevadm settle
lab_baseline
refused 3 "cannot use the array $array: it was not made for disk xvda of vm3" "mdadm --detail $array" mdmirror build vm3
mdadm --quiet --stop "$array"
for part in "" -source -destination; do
    dmsetup create "xenlvm-vm3-xvda$part" --table "0 32768 linear $loop 0"
    lab_baseline
    refused 3 "cannot use /dev/mapper/xenlvm-vm3-xvda$part: it was not made for disk xvda of vm3" "dmsetup table xenlvm-vm3-xvda$part" mdmirror build vm3
    dmsetup remove "xenlvm-vm3-xvda$part"
done
losetup --detach "$loop"

echo "a qcow2 image"
lab_baseline
refused 3 "/srv/images/q.qcow2 is a qcow2 image" "domuswitch live --to VG q" mdmirror build q
check "q runs on QEMU" lab_start q
lab_wait_records q 10 120
lab_baseline
refused 3 "/srv/images/q.qcow2 is a qcow2 image" "domuswitch live --to VG q" mdmirror build q
goes_on q
check "q stops" lab_shutdown q

echo "what would be refused when the domain was interrupted already"
lab_baseline
refused 3 "the image is 134217728 bytes, the volume only 130023424" "lvextend" mdmirror build --to xvda=vg0/smaller vm3
refused 3 "cannot find volume group vg9" "vgs" mdmirror build --dry-run --to vg9 vm3
refused 3 "it holds ext4 labelled precious" "--overwrite" mdmirror build --to xvda=vg0/full vm3
refused 2 "--bwlimit 0 would never end" "try 'mdmirror --help'" mdmirror build --bwlimit 0 --to vg0 vm3
refused 3 "cannot tell where disk xvda of vm3 goes" "say --to VG" mdmirror build --check-add vm3
got=0
image-to-lv --plan mirror vm3 2>/run/said || got=$?
check "image-to-lv asks where" test "$got $(grep -c 'cannot tell where disk xvda of vm3 goes' /run/said) $(grep -c 'step 2' /run/said)" = "3 1 0"
check "nothing is left of that" test -z "$(lab_new)"

echo "the destination"
check "build odd" mdmirror build odd
check "build vm3" mdmirror build vm3
on_mirror vm3
lab_baseline
refused 3 "the image is 67109376 bytes, the volume only 67108864" "lvextend --size 67109376b vg0/small" mdmirror add --to xvda=vg0/small odd
refused 3 "the image is 134217728 bytes, the volume only 130023424" "lvextend" mdmirror add --to xvda=vg0/smaller vm3
refused 3 "its sectors are 4096 bytes" "LOG-SEC" mdmirror add --to xvda=vg4k/big vm3
refused 3 "it is mounted on /mnt/m" "umount /mnt/m" mdmirror add --to xvda=vg0/mounted vm3
refused 3 "the configuration /etc/xen/vm5.cfg has it as a disk" "say another volume" mdmirror add vm3 vg0/used
refused 3 "it holds ext4 labelled precious" "--overwrite" mdmirror add vm3 vg0/full
refused 3 "cannot find volume group vg9" "vgs" mdmirror add --to vg9 vm3
goes_on vm3

echo "an image is replaced"
ln /srv/images/odd.img /srv/images/kept.img
cp --sparse=always /srv/images/odd.img /srv/images/new.img && mv /srv/images/new.img /srv/images/odd.img
lab_baseline # which names a loop device by its file
refused 3 "/srv/images/odd.img was replaced or removed" "mdmirror abort odd" mdmirror add --to vg0 odd
check "nothing is left of odd" mdmirror abort odd
mv /srv/images/kept.img /srv/images/odd.img
mv /srv/images/vm3.img /srv/images/away.img && truncate -s 128M /srv/images/vm3.img
lab_baseline
refused 3 "the disk xvda of domain vm3, which runs, is something else" "do not stop it" mdmirror add --to vg0 vm3
refused 3 "/srv/images/vm3.img was replaced or removed" "mv --no-clobber /srv/images/away.img /srv/images/vm3.img" mdmirror abort vm3
mv /srv/images/away.img /srv/images/vm3.img
goes_on vm3

echo "two runs at once"
mdmirror add --to vg0 --presync --bwlimit 1M vm3 >/dev/null 2>/run/first &
first=$!
copies() { [ -e /var/lib/xenlvm/vm3/xvda.bitmap ]; }
wait_for 60 copies || fail "the first does not copy: $(cat /run/first)"
lab_baseline
for verb in build add verify finish abort; do
    refused 3 "another run has it (mdmirror, process $first)" "wait until it has ended" mdmirror $verb vm3
done
kill -INT "$first"
status=0
wait "$first" || status=$?
check "interrupted" test "$status" = 130
check "and undone" test ! -e /dev/vg0/vm3-xvda
goes_on vm3

echo "a paused domain"
xl pause vm3
check "add" mdmirror add --to vg0 vm3
check "wait" mdmirror wait vm3
check "finish" mdmirror finish vm3
check "it is still paused" grep -qE ' --p--- ' <(xl list vm3)
xl unpause vm3
goes_on vm3
configs=$(sha256sum /etc/xen/*.cfg)
check "a second finish" grep -q 'nothing to do' <(mdmirror finish vm3 2>&1)
check "abort afterwards" grep -q 'nothing to do' <(mdmirror abort vm3 2>&1)
check "vm3 stops" lab_shutdown vm3

echo "a domain that is renamed, and crashes"
check "build" mdmirror build vm4
on_mirror vm4
xl rename vm4 other
lab_baseline
refused 3 "domain other runs on it, which was renamed" "xl rename other vm4" mdmirror add --to vg0 vm4
xl rename other vm4
check "add" mdmirror add --to vg0 vm4
check "wait" mdmirror wait vm4
xl rename vm4 other
lab_baseline
refused 3 "domain other runs on it, which was renamed" "xl rename other vm4" mdmirror finish vm4
refused 3 "domain other runs on it, which was renamed" "xl rename other vm4" mdmirror abort vm4
xl rename other vm4
goes_on vm4
crashed() { xl list vm4 | grep -q -- ' ---sc- '; }
xl sysrq vm4 c
wait_for 60 crashed || fail "it does not crash: $(xl list)"
check "finish" mdmirror finish vm4
xl destroy vm4
check "start on the volume" lab_start vm4
wait_for 120 lab_said vm4 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
check "stop" lab_shutdown vm4

echo "one of two mirrors is given up"
check "build" mdmirror build two
sed -E 's|file:/srv/images/two-.\.img,(xvd.)|phy:/dev/mapper/xenlvm-two-\1,\1|' /etc/xen/two.cfg >/run/two.cfg
xl create -q /run/two.cfg
lab_wait_records two 10 120
check "add" mdmirror add --to vg0 /srv/images/two-a.img
check "abort of the other" mdmirror abort /srv/images/two-b.img
xl reboot two
wait_for 120 lab_said two '^GUEST verified disk=xvda ' 2 || fail "it does not come back"
uses() { xenstore-ls -f /local/domain/0/backend/vbd | grep -o ' = "/dev/mapper/xenlvm-two-xvd."\| = "/srv/images/two-..img"' | sort -u | tr -d '\n'; }
check "it is on the mirror of the one, and on the image of the other" test "$(uses)" = ' = "/dev/mapper/xenlvm-two-xvda" = "/srv/images/two-b.img"'
check "wait" mdmirror wait two
check "finish" mdmirror finish two
check "stop" lab_shutdown two
for n in vm3 vm4 q two; do lab_judge $n; done
cp /run/at-first /run/lab-baseline
lab_leftovers 'lv vg0/vm[34]-xvda xenlvm.domain.vm[34]' 'dm vg0-vm[34]--xvda' 'lv vg0/two-xvda xenlvm.domain.two' 'dm vg0-two--xvda'
